import Foundation

/// Turns of a user and a model.
///
/// The whole dialog is encoded anew every time, and the cache reads only what it lacks; so undoing,
/// answering again and editing need nothing of their own. It belongs to one actor.
public final class Chat {
    private let generator: Generator
    private let format: ChatFormat
    private let now: () -> LocalTime
    private var said: [Message]
    private var systemText: String

    // A seed goes on where it was.
    private var answers: Int

    /// Begin a conversation, or go on with one.
    ///
    /// - Parameters:
    ///   - generator: what writes the answers
    ///   - format: how the model's dialogs are written
    ///   - system: system message, which says how the model is to behave; blank for none
    ///   - turns: what was said before, user and assistant in turn; half an answer counts as one
    ///   - now: the local time, for forms that write it
    /// - Throws: ``PromptError`` if the model has no turns, or those given are in another order
    public init(
        _ generator: Generator, _ format: ChatFormat, system: String = "", turns: [Message] = [],
        now: @escaping () -> LocalTime = { LocalTime(Date()) }
    ) throws {
        self.generator = generator
        self.format = format
        self.now = now
        systemText = system
        said = turns
        answers = turns.count / 2
        if turns.count % 2 != 0 {
            throw PromptError(
                "the conversation ends without an answer", hint: "Send its last message again.")
        }
        _ = try length(turns.isEmpty ? [greeting] : turns, system)
    }

    /// The system message.
    public var system: String { systemText }

    /// What was said, oldest first, without the system message.
    public var turns: [Message] { said }

    /// Change the system message; the turns are kept, and read again.
    ///
    /// - Throws: ``PromptError`` if it cannot be written
    public func change(system: String) throws {
        generator.end()
        _ = try length([greeting], system)
        systemText = system
    }

    /// Number of tokens of the conversation.
    public var length: Int {
        get throws { said.isEmpty ? 0 : try length(said, systemText) }
    }

    /// Number of its tokens that are in the cache, and need no reading.
    ///
    /// It is less than ``length`` even right after an answer, whose last token and end are read with the
    /// next message.
    public var cached: Int {
        get throws {
            said.isEmpty ? 0 : generator.cache.sharedLength(try encode(said[...], systemText, asks: false))
        }
    }

    /// Send a message and return the whole answer.
    ///
    /// Both become turns in whatever way the answer ends; when not one token was written and it was
    /// interrupted, neither does.
    ///
    /// - Parameters:
    ///   - onProgress: as ``KeptCache/read(_:stop:onProgress:)`` calls it, while the dialog is read
    ///   - onPiece: called with each piece of the answer, which is never empty
    /// - Throws: ``PromptError`` if the text is blank or does not fit into the context; ``EngineError`` if
    ///   the runtime failed: half an answer is kept
    @discardableResult
    public func send(
        _ text: String, _ settings: WriteSettings = .defaults, stop: Stop = Stop(),
        onProgress: (Int, Int) -> Void = { _, _ in }, onPiece: (String) throws -> Void = { _ in }
    ) throws -> Completion {
        try answer(said.count, text, settings, stop, onProgress, onPiece)
    }

    /// Answer the last message again, with other random numbers; the old answer is replaced.
    ///
    /// - Throws: ``PromptError`` if there is no answer yet; ``EngineError`` as
    ///   ``send(_:_:stop:onProgress:onPiece:)``
    @discardableResult
    public func regenerate(
        _ settings: WriteSettings = .defaults, stop: Stop = Stop(),
        onProgress: (Int, Int) -> Void = { _, _ in }, onPiece: (String) throws -> Void = { _ in }
    ) throws -> Completion {
        try requireAnswer()
        let index = said.count - 2
        return try answer(
            index, said[index].text, settings, stop, onProgress, onPiece)
    }

    /// Replace a message of the user and answer it; what was said after it is forgotten.
    ///
    /// - Parameter index: place of the message in ``turns``
    /// - Throws: ``PromptError`` if there is no such message, or as ``send(_:_:stop:onProgress:onPiece:)``
    @discardableResult
    public func edit(
        _ index: Int, _ text: String, _ settings: WriteSettings = .defaults, stop: Stop = Stop(),
        onProgress: (Int, Int) -> Void = { _, _ in }, onPiece: (String) throws -> Void = { _ in }
    ) throws -> Completion {
        try requireUser(index)
        return try answer(
            index, text, settings, stop, onProgress, onPiece)
    }

    /// Take the last message and its answer back, and return the message.
    ///
    /// - Throws: ``PromptError`` if there is no answer yet
    @discardableResult
    public func undo() throws -> String {
        try requireAnswer()
        generator.end()
        let question = said[said.count - 2].text
        said.removeLast(2)
        return question
    }

    /// Forget every turn; the system message stays.
    public func reset() {
        generator.end()
        said = []
    }

    /// Forget the oldest turns; the system message stays.
    ///
    /// - Parameter count: number of turns, even, so that the conversation still begins with the user
    /// - Throws: ``PromptError`` if it is another number
    public func dropOldest(_ count: Int) throws {
        if count < 0 || count > said.count || count % 2 != 0 {
            throw PromptError(
                "the oldest turns: expected an even number from 0 to \(said.count), found \(count)",
                hint: "Drop a message with its answer.")
        }
        generator.end()
        said.removeFirst(count)
    }

    /// Explain why a message does not fit, and what would make it fit; nil when it fits.
    ///
    /// - Parameter index: place in ``turns`` where the message is put; nil: behind all
    /// - Throws: ``PromptError`` if the text is blank, or there is no message of the user at the place
    public func overflow(
        _ text: String, _ settings: WriteSettings = .defaults, at index: Int? = nil
    ) throws -> Overflow? {
        if isBlank(text) {
            throw PromptError("the message is empty", hint: "Give a text of at least one character.")
        }
        let index = index ?? said.count
        if index != said.count { try requireUser(index) }
        let question = Message(.user, text)
        return try findOverflow(
            turns: index, maxTokens: settings.maxTokens, maxContext: generator.cache.maxContext
        ) { dropped, hasSystem in
            try encode(said[dropped..<index] + [question], hasSystem ? systemText : "").count
        }
    }

    private func answer(
        _ index: Int, _ text: String, _ settings: WriteSettings, _ stop: Stop,
        _ onProgress: (Int, Int) -> Void, _ onPiece: (String) throws -> Void
    ) throws -> Completion {
        generator.end()
        if let overflow = try overflow(text, settings, at: index) {
            throw PromptError(overflow.message, hint: overflow.hint, kind: .contextFull)
        }
        let question = Message(.user, text)
        let prompt = try encode(said[..<index] + [question], systemText)
        let run = try generator.begin(prompt, raised(settings))
        answers += 1
        defer {
            generator.end()
            remember(index, question, run.completion)
        }
        while let piece = try run.next(stop, onProgress: onProgress) { try onPiece(piece) }
        return run.completion
    }

    private func remember(_ index: Int, _ question: Message, _ completion: Completion) {
        if completion.ids.isEmpty && completion.stats.stopReason == .interrupted { return }
        said.removeSubrange(index...)
        said += [question, Message(.assistant, completion.text)]
    }

    /// The first answer uses the seed, the second the next higher one, and so on.
    private func raised(_ settings: WriteSettings) -> WriteSettings {
        guard let seed = settings.sampling.seed else { return settings }
        return settings.with(seed: (seed &+ Int64(answers)) & .max)
    }

    private func requireAnswer() throws {
        if said.isEmpty { throw PromptError("there is no answer yet", hint: "Say something first.") }
    }

    private func requireUser(_ index: Int) throws {
        if said.indices.contains(index) && said[index].role == .user { return }
        throw PromptError(
            "there is no message of the user at place \(index) of \(said.count)", hint: "Choose another one.")
    }

    private func length(_ turns: [Message], _ system: String) throws -> Int {
        try encode(turns[...], system, asks: turns.last?.role == .user).count
    }

    private func encode(
        _ turns: ArraySlice<Message>, _ system: String, asks: Bool = true
    ) throws -> [Int32] {
        let first = isBlank(system) ? [] : [Message(.system, system)]
        return try format.encode(first + turns, generator.tokenizer, asks: asks, now: now())
    }
}

private let greeting = Message(.user, "Hello")
