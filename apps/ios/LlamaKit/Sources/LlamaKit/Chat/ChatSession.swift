import Foundation
import Synchronization

/// What a session says while it answers.
public enum Piece: Sendable, Equatable {
    /// So many tokens of a long prompt are read.
    case reading(done: Int, total: Int)

    /// More of the answer: whole characters, at least one.
    case text(String)

    /// The answer has ended; why, and with which figures.
    case end(GenerationStats)
}

/// The pieces of an answer, as they are written.
public typealias Pieces = AsyncThrowingStream<Piece, any Error>

/// A conversation with a model, which is loaded once and stepped on a queue of its own.
///
/// ```swift
/// for try await piece in session.send("Hello") {
///     if case .text(let text) = piece { print(text, terminator: "") }
/// }
/// ```
///
/// What is asked of it is done in turn. So what is asked while an answer is written waits for its end; only
/// ``stop()`` does not. Cancelling the task that reads the pieces, or leaving its loop, stops the answer
/// before the next step of the model, and what is written until then stays in ``turns``: the next answer
/// goes on from there, and reads nothing twice.
public actor ChatSession {
    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// The figures of the last answer, also of one that was stopped; nil: none was written yet.
    public private(set) var lastStats: GenerationStats?

    private nonisolated let executor = QueueExecutor(label: "org.llamaexport.model")
    private nonisolated let stops = Mutex<[Stop]>([])
    private nonisolated let sampling: Sampling
    private let format: ChatFormat
    private let now: @Sendable () -> LocalTime
    private var generator: Generator?
    private var chat: Chat?

    /// Load a model, and begin a conversation with it or go on with one.
    ///
    /// - Parameters:
    ///   - model: what is known of it besides its artifact
    ///   - system: system message, which says how the model is to behave; blank for none
    ///   - turns: what was said before, user and assistant in turn
    ///   - now: the local time, for forms that write it
    ///   - clock: nanoseconds, for differences only
    ///   - engine: loads the artifact; called once, on the queue where the model stays
    /// - Throws: what `engine` throws; ``BadInput`` if the artifact has no such context; ``PromptError`` if
    ///   the turns are in another order
    public init(
        _ model: ChatModel, system: String = "", turns: [Message] = [],
        now: @escaping @Sendable () -> LocalTime = { LocalTime(Date()) },
        clock: @escaping @Sendable () -> UInt64 = monotonicNanoseconds,
        engine: @Sendable () throws -> any StepModel
    ) async throws {
        format = model.format
        sampling = model.sampling
        self.now = now
        // All is set, and so what follows runs on the queue.
        preconditionIsolated()
        let cache = try KeptCache(engine(), maxContext: model.maxContext)
        generator = Generator(
            cache, tokenizer: model.tokenizer, stopIds: model.stopIds, headTokens: model.headTokens,
            clock: clock)
        if format.turns != nil { try converse(system: system, turns: turns) }
    }

    // MARK: Answers

    /// Send a message and answer it; both become ``turns``.
    ///
    /// - Parameter settings: how it is written; nil: tokens are drawn as the model's bundle asks
    /// - Returns: the pieces, which end with an error if the text is blank or does not fit into the context
    ///   (``PromptError``), or the runtime failed (``EngineError``, and half the answer is kept)
    public nonisolated func send(_ text: String, _ settings: WriteSettings? = nil) -> Pieces {
        let settings = settings ?? asked
        return answer { chat, hearing in
            try chat.send(
                text, settings, stop: hearing.stop, onProgress: hearing.reading, onPiece: hearing.text)
        }
    }

    /// Answer the last message again, with other random numbers; the old answer is replaced.
    ///
    /// - Returns: the pieces, as of ``send(_:_:)``; there is an error if there is no answer yet
    public nonisolated func regenerate(_ settings: WriteSettings? = nil) -> Pieces {
        let settings = settings ?? asked
        return answer { chat, hearing in
            try chat.regenerate(
                settings, stop: hearing.stop, onProgress: hearing.reading, onPiece: hearing.text)
        }
    }

    /// Replace a message of the user and answer it; what was said after it is forgotten.
    ///
    /// - Parameter index: place of the message in ``turns``
    /// - Returns: the pieces, as of ``send(_:_:)``; there is an error if there is no such message
    public nonisolated func edit(
        _ index: Int, _ text: String, _ settings: WriteSettings? = nil
    ) -> Pieces {
        let settings = settings ?? asked
        return answer { chat, hearing in
            try chat.edit(
                index, text, settings, stop: hearing.stop, onProgress: hearing.reading,
                onPiece: hearing.text)
        }
    }

    /// Go on with a text that is no conversation, as models do that have no form for one.
    ///
    /// - Returns: the pieces, as of ``send(_:_:)``
    public nonisolated func write(after text: String, _ settings: WriteSettings? = nil) -> Pieces {
        let settings = settings ?? WriteSettings.continuation.with(sampling)
        return stream { session, hearing in
            let run = try session.opened().begin(text, settings)
            while let piece = try run.next(hearing.stop, onProgress: hearing.reading) { hearing.text(piece) }
            return run.completion
        }
    }

    /// Stop the answer that is written, and those that wait; from any thread, and at once.
    ///
    /// Its pieces end as those of a whole answer do, with ``StopReason/interrupted``.
    public nonisolated func stop() {
        // Those that wait first, so that none of them begins.
        for stop in stops.withLock({ $0 }).reversed() { stop.request() }
    }

    // MARK: The conversation

    /// What was said, oldest first, without the system message.
    public var turns: [Message] { chat?.turns ?? [] }

    /// The system message.
    public var system: String { chat?.system ?? "" }

    /// Number of tokens of the conversation.
    public var length: Int {
        get throws { try chat?.length ?? 0 }
    }

    /// Number of its tokens that are in the cache, and need no reading.
    public var cached: Int {
        get throws { try chat?.cached ?? 0 }
    }

    /// Begin another conversation, or go on with another one; what both begin with is not read again.
    ///
    /// - Throws: ``PromptError`` if the model has no turns, or those given are in another order
    public func converse(system: String = "", turns: [Message] = []) throws {
        chat = try Chat(opened(), format, system: system, turns: turns, now: now)
    }

    /// Change the system message; the turns are kept, and read again.
    ///
    /// - Throws: ``PromptError`` if the model has no turns
    public func change(system: String) throws {
        try chatting().change(system: system)
    }

    /// Explain why a message does not fit, and what would make it fit; nil when it fits.
    ///
    /// - Parameter index: place in ``turns`` where the message is put; nil: behind all
    /// - Throws: ``PromptError`` if the text is blank, or there is no message of the user at the place
    public func overflow(
        _ text: String, _ settings: WriteSettings? = nil, at index: Int? = nil
    ) throws -> Overflow? {
        try chatting().overflow(text, settings ?? asked, at: index)
    }

    /// Forget the oldest turns, as ``Overflow/droppedTurns`` says; the system message stays.
    ///
    /// - Throws: ``PromptError`` if their number is odd, or there are no so many
    public func dropOldest(_ count: Int) throws {
        try chatting().dropOldest(count)
    }

    /// Take the last message and its answer back, and return the message.
    ///
    /// - Throws: ``PromptError`` if there is no answer yet
    @discardableResult
    public func undo() throws -> String {
        try chatting().undo()
    }

    // MARK: The model

    /// Do something else with the model, such as to prove it, on its queue.
    ///
    /// - Throws: what `body` throws; ``EngineError`` if the model was closed
    public func use<Result: Sendable>(_ body: @Sendable (KeptCache) throws -> Result) throws -> Result {
        let generator = try opened()
        generator.end()
        return try body(generator.cache)
    }

    /// Let go of the model and its memory, after stopping what is written; the conversation ends too.
    public nonisolated func close() async {
        stop()
        await letGo()
    }

    private nonisolated var asked: WriteSettings { .defaults.with(sampling) }

    private func letGo() {
        chat = nil
        generator = nil
    }

    private func opened() throws -> Generator {
        guard let generator else { throw EngineError("the model was closed", hint: "Load it again.") }
        return generator
    }

    private func chatting() throws -> Chat {
        if let chat { return chat }
        // It says why there is none.
        return try Chat(opened(), format)
    }

    private nonisolated func answer(
        _ write: @escaping @Sendable (Chat, Hearing) throws -> Completion
    ) -> Pieces {
        stream { session, hearing in try write(session.chatting(), hearing) }
    }

    private nonisolated func stream(
        _ write: @escaping @Sendable (isolated ChatSession, Hearing) throws -> Completion
    ) -> Pieces {
        let (pieces, continuation) = Pieces.makeStream()
        let stop = Stop()
        stops.withLock { $0.append(stop) }
        continuation.onTermination = { reason in
            if case .cancelled = reason { stop.request() }
        }
        executor.run {
            self.assumeIsolated { $0.say(Hearing(stop: stop, continuation: continuation), write) }
        }
        return pieces
    }

    private func say(
        _ hearing: Hearing, _ write: (isolated ChatSession, Hearing) throws -> Completion
    ) {
        defer { stops.withLock { stops in stops.removeAll { $0 === hearing.stop } } }
        do {
            let completion = try write(self, hearing)
            lastStats = completion.stats
            hearing.continuation.yield(.end(completion.stats))
            hearing.continuation.finish()
        } catch {
            hearing.continuation.finish(throwing: error)
        }
    }
}

/// Who hears of an answer, and may stop it.
private struct Hearing: Sendable {
    let stop: Stop
    let continuation: Pieces.Continuation

    func reading(_ done: Int, _ total: Int) {
        continuation.yield(.reading(done: done, total: total))
    }

    func text(_ text: String) {
        continuation.yield(.text(text))
    }
}
