import LlamaKit

/// An answer that is being written.
public struct Pending: Sendable, Equatable {
    /// Place of its question among the turns.
    public let index: Int

    /// What was asked.
    public let question: String

    /// What is written of it.
    public internal(set) var answer = ""

    /// Number of tokens of a long prompt that are read, of ``totalTokens``; 0: no word yet.
    public internal(set) var readTokens = 0

    /// Number of tokens of a long prompt; 0: it is short.
    public internal(set) var totalTokens = 0
}

/// A question that does not fit into the context.
public struct FullContext: Sendable, Equatable {
    /// Place of the question among the turns.
    public let index: Int

    /// What was asked.
    public let question: String

    /// By how much, and what would make it fit.
    public let overflow: Overflow

    public static func == (left: FullContext, right: FullContext) -> Bool {
        left.index == right.index && left.question == right.question
    }
}

/// How an answer ended.
enum AnswerEnd {
    case written(SavedTurn)
    case full(Overflow)
    case failed(any AppError, text: String)
}

/// A question to the model, with what was said before.
struct Question: Sendable {
    let system: String
    let turns: [Message]
    let index: Int
    let text: String
    let settings: WriteSettings
}

/// Put a question to a session and return how its answer ended.
///
/// - Parameters:
///   - onPiece: hears each piece on the main actor
///   - end: makes the figures under the answer
@MainActor
func ask(
    _ question: Question, _ session: ChatSession, chats: Bool, stop: Stop,
    onPiece: (Piece) -> Void, figures: (GenerationStats) -> AnswerFigures
) async -> AnswerEnd {
    var text = ""
    do {
        if chats {
            if let overflow = try await prepare(question, session) { return .full(overflow) }
        }
        // It was asked to stop before there was anything that a session could stop.
        if stop.isRequested { return .written(SavedTurn(Message(.assistant, ""), isWhole: false)) }
        let pieces = begin(question, session, chats: chats)
        var stats: GenerationStats?
        for try await piece in pieces {
            if case .text(let more) = piece { text += more }
            if case .end(let found) = piece { stats = found }
            onPiece(piece)
        }
        let isWhole = stats?.stopReason == .stopToken || stats?.stopReason == .stopText
        let known = stats.flatMap { $0.newTokens > 0 ? figures($0) : nil }
        return .written(SavedTurn(Message(.assistant, text), isWhole: isWhole, figures: known))
    } catch {
        return .failed(inWords(error), text: text)
    }
}

/// Bring the session to where the question is asked; return why it does not fit, if so.
private func prepare(_ question: Question, _ session: ChatSession) async throws -> Overflow? {
    let isThere = await session.turns == question.turns
    let hasSystem = await session.system == question.system
    if !isThere || !hasSystem {
        try await session.converse(system: question.system, turns: question.turns)
    }
    let place = question.index == question.turns.count ? nil : question.index
    return try await session.overflow(question.text, question.settings, at: place)
}

private func begin(_ question: Question, _ session: ChatSession, chats: Bool) -> Pieces {
    if !chats { return session.write(after: question.text, question.settings) }
    if question.index == question.turns.count { return session.send(question.text, question.settings) }
    return session.edit(question.index, question.text, question.settings)
}
