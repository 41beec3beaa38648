import Foundation

private let settingsName = "generation_config.json"
private let mostSettingsBytes = 1 << 20

/// What is known of a model besides its artifact.
public struct ChatModel: Sendable {
    /// What turns text into tokens.
    public let tokenizer: any Tokenizer

    /// How its dialogs are written, or why they cannot be.
    public let format: ChatFormat

    /// How it wants its tokens drawn.
    public let sampling: Sampling

    let stopIds: Set<Int32>
    let headTokens: [Int32]
    let maxContext: Int?

    /// Name the parts of a model.
    ///
    /// - Parameters:
    ///   - tokenizer: the model's tokenizer
    ///   - format: how its dialogs are written
    ///   - stopIds: ids that end an answer
    ///   - headTokens: ids of the tokens that its logits stand for, where its head was pruned; empty: each
    ///     logit stands for its own index
    ///   - maxContext: most positions to use; nil: all that the artifact has
    ///   - sampling: how it wants its tokens drawn
    public init(
        tokenizer: any Tokenizer, format: ChatFormat, stopIds: Set<Int32>, headTokens: [Int32] = [],
        maxContext: Int? = nil, sampling: Sampling = .defaults
    ) {
        self.tokenizer = tokenizer
        self.format = format
        self.sampling = sampling
        self.stopIds = stopIds
        self.headTokens = headTokens
        self.maxContext = maxContext
    }

    /// Read what a bundle says of its model; its tokenizer takes a while.
    ///
    /// - Parameters:
    ///   - tokenizer: the bundle's tokenizer; nil: it is loaded
    ///   - maxContext: most positions to use; nil: all that the artifact has
    /// - Throws: ``BundleError`` if the model cannot write, or its tokenizer is damaged or not known here;
    ///   ``BadInput`` if a file of the bundle is not what it should be
    public init(_ bundle: ModelBundle, tokenizer: (any Tokenizer)? = nil, maxContext: Int? = nil) throws {
        let manifest = bundle.manifest
        try manifest.requireWriter()
        self.init(
            tokenizer: try tokenizer ?? loadTokenizer(bundle.folder),
            format: try manifest.chat.map { try ChatFormat($0, vocabSize: manifest.vocabSize) } ?? .unknown,
            stopIds: manifest.stopIds, maxContext: maxContext, sampling: try samplingOf(bundle.folder))
    }
}

private func samplingOf(_ folder: URL) throws -> Sampling {
    let place = folder.at(settingsName)
    if !isFile(place) { return .defaults }
    do {
        guard let content = try FileReader(place).readAll(most: mostSettingsBytes) else {
            throw BadInput(
                "\(settingsName) is larger than \(mostSettingsBytes) bytes", hint: "Copy the model again.")
        }
        let settings = try parseJson(content, where: settingsName).asObject
        return settings.map { ModelSampling($0).sampling } ?? .defaults
    } catch let fault as FileFault {
        throw BadInput("\(settingsName) cannot be read: \(fault)", hint: "Copy the model again.")
    }
}
