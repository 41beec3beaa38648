import Foundation
import LlamaKit

/// What is read of a bundle before its artifact is loaded.
struct OpenedBundle: Sendable {
    let bundle: ModelBundle
    let chatModel: ChatModel
    let noChatReason: String?
    let takesSystem: Bool
    let sampling: Sampling
    let contextTokens: Int

    /// Read a bundle; it takes a moment, so it belongs on no actor of the screen's.
    ///
    /// - Parameter contextTokens: largest number of positions that are wanted
    /// - Throws: ``AppError`` if it cannot be used
    init(_ folder: URL, engines: any Engines, contextTokens wanted: Int) throws {
        bundle = try ModelBundle.open(folder)
        let manifest = bundle.manifest
        try manifest.requireWriter()
        if !engines.targets.contains(manifest.target) { throw wrongTarget(bundle, engines.targets) }
        contextTokens = min(wanted, manifest.maxContext)
        chatModel = try ChatModel(
            bundle, tokenizer: engines.openTokenizer(folder), maxContext: contextTokens)
        let format = chatModel.format
        noChatReason = format.turns == nil ? format.reason ?? "" : nil
        takesSystem = format.takesSystem
        sampling = chatModel.sampling
    }

    /// Describe the model that was loaded of it.
    var loaded: LoadedModel {
        LoadedModel(
            bundle: bundle, contextTokens: contextTokens, noChatReason: noChatReason,
            takesSystem: takesSystem, sampling: sampling)
    }
}

private func wrongTarget(_ bundle: ModelBundle, _ targets: [String]) -> EngineError {
    EngineError(
        "\(bundle.folder.lastPathComponent) is for \(bundle.manifest.target), which does not run in this "
            + "app: expected \(targets.joined(separator: " or "))",
        hint: "Export the model with --target \(targets.joined(separator: " or --target ")).",
        kind: .other)
}
