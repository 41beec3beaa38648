import Foundation
import LlamaKit
import LlamaKitCoreML

/// Open a bundle, ask a question and hand out the answer as it is written.
func ask(_ folder: URL, _ question: String, onText: (String) -> Void) async throws {
    let bundle = try ModelBundle.open(folder)
    _ = try bundle.checkHashes { _ in true }
    let context = min(2048, bundle.manifest.maxContext)
    let layout = try bundle.coreMLLayout()
    let compiled = try await CoreMLStepModel.compile(
        bundle.artifact, manifestSha256: ModelBundle.manifestSha256(folder))
    let model = try ChatModel(bundle, maxContext: context)
    let session = try await ChatSession(model, system: "Answer in one sentence.") {
        try CoreMLStepModel.open(compiled, layout: layout, maxContext: context)
    }
    let settings = try WriteSettings(sampling: .greedy, maxTokens: 256)
    let pieces =
        model.format.turns == nil
        ? session.write(after: question, settings) : session.send(question, settings)
    for try await piece in pieces {
        if case .text(let text) = piece { onText(text) }
    }
    await session.close()
}
