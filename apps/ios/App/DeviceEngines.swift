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
        let layout = try bundle.coreMLLayout()
        let hash = try ModelBundle.manifestSha256(bundle.folder)
        let compiled = try await CoreMLStepModel.compile(artifact, manifestSha256: hash)
        return { try CoreMLStepModel.open(compiled, layout: layout, maxContext: contextTokens) }
    }

    func openTokenizer(_ folder: URL) throws -> any Tokenizer { try loadTokenizer(folder) }

    func forget(_ folder: URL) {
        // What was never compiled leaves nothing to forget.
        guard let hash = try? ModelBundle.manifestSha256(folder) else { return }
        try? CompiledModels.inApplicationSupport.forget(manifestSha256: hash)
    }

    func runtime(of target: String) -> String {
        target == "coreml" ? "Core ML of \(ProcessInfo.processInfo.operatingSystemVersionString)" : target
    }
}
