// An answer of fewer tokens is hardly one: the conversation is full before that.
private let leastAnswerTokens = 16
private let freedShare = 4

/// Why the next turn does not fit, and what would make it fit.
public struct Overflow: Sendable, Equatable {
    /// What must be shorter where dropping turns is no help.
    public enum TooLong: String, Sendable {
        case nothing = ""
        case message
        case system = "system message"
        case either = "message or the system message"
    }

    /// Number of tokens of the conversation with the new message.
    public let needed: Int

    /// Number of positions of the context.
    public let maxContext: Int

    /// Number of the oldest messages that would have to go.
    public let droppedTurns: Int

    /// Number of tokens that would be left, and read again; nil when even the new message alone is too long.
    public let keptTokens: Int?

    /// What must be shorter.
    public let tooLong: TooLong

    /// What is wrong, in a sentence.
    public var message: String {
        "the conversation with this message is \(needed) tokens long, and the context has \(maxContext), "
            + "which must hold the answer too"
    }

    /// What to do next.
    public var hint: String {
        let advice =
            tooLong == .nothing ? "Drop the oldest turns, begin anew" : "Shorten the \(tooLong.rawValue)"
        return advice + ", or choose a larger context."
    }
}

/// Compare a conversation and its next answer with the context.
///
/// - Parameters:
///   - turns: number of the turns before the new message
///   - maxTokens: largest number of tokens of the answer
///   - maxContext: number of positions of the context
///   - length: counts the tokens of the conversation with its new message, without a number of the oldest
///     turns, and perhaps without the system message; the more turns are left out, the fewer they are
/// - Returns: nil when the answer fits
/// - Throws: what `length` throws
func findOverflow(
    turns: Int, maxTokens: Int, maxContext: Int,
    length: (_ dropped: Int, _ hasSystem: Bool) throws -> Int
) rethrows -> Overflow? {
    let needed = try length(0, true)
    let least = min(maxTokens, leastAnswerTokens)
    if needed + least <= maxContext { return nil }
    // Once something must go, a quarter of the context is made free: not every turn again.
    let room = max(min(maxTokens, maxContext / freedShare), least)
    let dropped = try fewestDropped(turns) {
        try length($0, true) + ($0 == turns ? least : room) <= maxContext
    }
    if dropped <= turns {
        return Overflow(
            needed: needed, maxContext: maxContext, droppedTurns: dropped,
            keptTokens: try length(dropped, true), tooLong: .nothing)
    }
    let alone = try length(turns, false)
    let withSystem = try length(turns, true)
    return Overflow(
        needed: needed, maxContext: maxContext, droppedTurns: turns, keptTokens: nil,
        tooLong: tooLong(alone: alone, withSystem: withSystem, room: maxContext - least))
}

/// Return the fewest turns, an even number, without which it fits; more than all: it never does.
///
/// Counting takes as long as the conversation has letters, so the place is found by halving.
private func fewestDropped(_ turns: Int, fits: (Int) throws -> Bool) rethrows -> Int {
    var low = 1
    var high = turns / 2 + 1
    while low < high {
        let middle = (low + high) / 2
        if try fits(2 * middle) { high = middle } else { low = middle + 1 }
    }
    return 2 * low
}

/// Return what must be shorter when a message does not fit even alone.
private func tooLong(alone: Int, withSystem: Int, room: Int) -> Overflow.TooLong {
    if withSystem - alone > room { return .system }
    return alone <= room ? .either : .message
}
