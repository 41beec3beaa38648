/// What is written, and for how long.
public struct WriteSettings: Sendable {
    /// How tokens are drawn.
    public private(set) var sampling = Sampling.defaults

    /// Largest number of new tokens.
    public private(set) var maxTokens = 512

    /// Texts before the first of which the new text ends.
    public private(set) var stopTexts: [String] = []

    /// The settings of an answer where nobody chose.
    public static let defaults = WriteSettings()

    /// The settings of a text's continuation where nobody chose: at most 256 tokens.
    public static let continuation = WriteSettings.defaults.with(maxTokens: 256)

    private init() {}

    /// Check settings; what is left out is as in ``defaults``.
    ///
    /// - Throws: ``BadInput`` if `maxTokens` is less than 1, or a stop text is empty
    public init(sampling: Sampling = .defaults, maxTokens: Int = 512, stopTexts: [String] = []) throws {
        if maxTokens < 1 {
            throw BadInput(
                "max_tokens: expected at least 1; found \(maxTokens)", hint: "Allow some tokens.",
                kind: .setting)
        }
        _ = try StopTexts(stopTexts)
        self.sampling = sampling
        self.maxTokens = maxTokens
        self.stopTexts = stopTexts
    }

    /// Return the same settings with tokens drawn otherwise.
    func with(_ sampling: Sampling) -> WriteSettings {
        var copy = self
        copy.sampling = sampling
        return copy
    }

    private func with(maxTokens: Int) -> WriteSettings {
        var copy = self
        copy.maxTokens = maxTokens
        return copy
    }

    /// Return the same settings with another seed, at least 0.
    func with(seed: Int64) -> WriteSettings {
        with(sampling.with(seed: seed))
    }
}

/// A text that was written.
public struct Completion: Sendable {
    /// The new text, without the prompt.
    public let text: String

    /// The new tokens, without the stop token.
    public let ids: [Int32]

    /// Figures of the generation, and why it ended.
    public let stats: GenerationStats
}

/// Writes texts with a model: one at a time, each given whole.
///
/// What the cache already holds of a text is not read again. It belongs to one actor.
public final class Generator {
    /// The model's cache.
    public let cache: KeptCache

    /// The model's tokenizer.
    public let tokenizer: any Tokenizer

    private let stopIds: Set<Int32>
    private let clock: () -> UInt64
    private let drawing: Drawing
    private var current: Generation?

    /// Write with a model.
    ///
    /// - Parameters:
    ///   - cache: the model's cache
    ///   - tokenizer: the model's tokenizer
    ///   - stopIds: ids that end a text
    ///   - headTokens: ids of the tokens that the model's logits stand for, where its head was pruned;
    ///     empty: each logit stands for its own index
    ///   - clock: nanoseconds, for differences only
    public init(
        _ cache: KeptCache, tokenizer: any Tokenizer, stopIds: Set<Int32>, headTokens: [Int32] = [],
        clock: @escaping () -> UInt64 = monotonicNanoseconds
    ) {
        self.cache = cache
        self.tokenizer = tokenizer
        self.stopIds = stopIds
        self.clock = clock
        drawing = Drawing(vocabSize: min(tokenizer.vocabSize, cache.vocabSize), headTokens: headTokens)
    }

    /// Begin to continue some tokens; any text that was not finished ends here, whatever follows.
    ///
    /// - Parameters:
    ///   - prompt: token ids `[n]` of the whole text so far
    ///   - settings: how tokens are drawn, and how many
    /// - Throws: ``PromptError`` if the prompt is empty, or longer than the context
    public func begin(_ prompt: [Int32], _ settings: WriteSettings = .continuation) throws -> TextRun {
        end()
        return try begin(prompt, settings, continues: false)
    }

    /// Begin to continue a text, which gets the tokenizer's prefix in front.
    ///
    /// - Throws: ``PromptError`` as the other form
    public func begin(_ text: String, _ settings: WriteSettings = .continuation) throws -> TextRun {
        end()
        if text.isEmpty { throw emptyPrompt }
        return try begin(tokenizer.prefixIds + tokenizer.encode(text), settings, continues: true)
    }

    /// End a text that is not finished: its next token would go to the wrong place.
    public func end() {
        current?.close()
        current = nil
    }

    private func begin(_ prompt: [Int32], _ settings: WriteSettings, continues: Bool) throws -> TextRun {
        if prompt.isEmpty { throw emptyPrompt }
        if prompt.count > cache.maxContext {
            throw PromptError(
                "the prompt is \(prompt.count) tokens long, and the context has room for \(cache.maxContext)",
                hint: "Shorten it, or choose a larger context.", kind: .contextFull)
        }
        cache.keepPrefix(of: prompt)
        let generation = Generation(
            cache, prompt: prompt, settings: settings, stopIds: stopIds, drawing: drawing, clock: clock)
        current = generation
        return TextRun(
            generation, tokenizer.streamDecoder(continues: continues), try StopTexts(settings.stopTexts))
    }

    private var emptyPrompt: PromptError {
        PromptError("the prompt is empty", hint: "Give a text of at least one character.")
    }
}

/// Pieces of new text as they are written: whole characters only, and nothing of a stop text.
public final class TextRun {
    private let generation: Generation
    private let decoder: any StreamDecoder
    private var stopTexts: StopTexts
    private var text = ""
    private var ids: [Int32] = []
    private var hasEnded = false

    init(_ generation: Generation, _ decoder: any StreamDecoder, _ stopTexts: StopTexts) {
        self.generation = generation
        self.decoder = decoder
        self.stopTexts = stopTexts
    }

    /// The text so far.
    public var completion: Completion {
        var stats = generation.stats
        if stopTexts.isFound { stats.stopReason = .stopText }
        return Completion(text: text, ids: ids, stats: stats)
    }

    /// Write until there is text to show.
    ///
    /// - Parameters:
    ///   - stop: wish to stop, looked at before each call of the model
    ///   - onProgress: as ``KeptCache/read(_:stop:onProgress:)`` calls it, while the prompt is read
    /// - Returns: a piece that is never empty; nil: the text has ended
    /// - Throws: ``EngineError`` if the runtime failed; what was written until then stays in ``completion``
    public func next(_ stop: Stop, onProgress: (Int, Int) -> Void = { _, _ in }) throws -> String? {
        while !hasEnded {
            let id = try generation.next(stop, onProgress: onProgress)
            let piece = try id.map(taken) ?? ending()
            if !piece.isEmpty {
                text += piece
                return piece
            }
        }
        return nil
    }

    /// Write the rest, piece by piece, and return the whole.
    ///
    /// - Throws: as ``next(_:onProgress:)``, or what `onPiece` throws
    @discardableResult
    public func finish(_ stop: Stop = Stop(), onPiece: (String) throws -> Void = { _ in }) throws
        -> Completion
    {
        while let piece = try next(stop) { try onPiece(piece) }
        return completion
    }

    private func taken(_ id: Int32) throws -> String {
        ids.append(id)
        let piece = stopTexts.release(try decoder.push(id))
        if stopTexts.isFound {
            hasEnded = true
            generation.close()
        }
        return piece
    }

    private func ending() -> String {
        hasEnded = true
        // What was stopped breaks off here: half a character, or half a stop text, is no text.
        if generation.stats.stopReason == .interrupted { return "" }
        let piece = stopTexts.release(decoder.flush())
        return stopTexts.isFound ? piece : piece + stopTexts.rest()
    }
}
