import Foundation
import LlamaAppCore
import LlamaKit
import LlamaKitCoreML

#if canImport(LlamaKitExecuTorch)
    import LlamaKitExecuTorch
#endif

/// The runtimes that the app has.
struct DeviceEngines: Engines {
    var targets: [String] {
        #if canImport(LlamaKitExecuTorch)
            return ["coreml", "executorch"]
        #else
            return ["coreml"]
        #endif
    }

    func prepare(_ bundle: ModelBundle, contextTokens: Int) async throws -> EngineOpener {
        let artifact = bundle.artifact
        #if canImport(LlamaKitExecuTorch)
            if bundle.manifest.target == "executorch" {
                let vocabSize = bundle.manifest.vocabSize
                return {
                    try ExecuTorchStepModel(artifact, vocabSize: vocabSize, maxContext: contextTokens)
                }
            }
        #endif
        let layout = try coreMLLayout(bundle.folder)
        let hash = try manifestHash(bundle.folder)
        let compiled = try await CoreMLStepModel.compile(artifact, manifestSha256: hash)
        return { try CoreMLStepModel.open(compiled, layout: layout, maxContext: contextTokens) }
    }

    func openTokenizer(_ folder: URL) throws -> any Tokenizer { try loadTokenizer(folder) }

    func forget(_ folder: URL) {
        // What was never compiled leaves nothing to forget.
        guard let hash = try? manifestHash(folder) else { return }
        try? CompiledModels.inApplicationSupport.forget(manifestSha256: hash)
    }

    func runtime(of target: String) -> String {
        target == "coreml" ? "Core ML of \(ProcessInfo.processInfo.operatingSystemVersionString)" : target
    }
}

private func manifestContent(_ folder: URL) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: folder.appendingPathComponent("manifest.json")))
}

private func manifestHash(_ folder: URL) throws -> String { Sha256.hex(of: try manifestContent(folder)) }

private func coreMLLayout(_ folder: URL) throws -> CoreMLLayout {
    let manifest = try parseJson(manifestContent(folder), where: "manifest.json")
    return try CoreMLLayout(graph: manifest.fields(where: "manifest.json").fields("graph"))
}
