import LlamaAppCore
import LlamaKit

/// A message as the chat shows it.
struct ChatRow: Identifiable, Equatable {
    /// Its place among the turns.
    let index: Int
    let isUser: Bool
    let text: String

    /// What stands under it; empty: nothing.
    let under: String

    /// Whether it is being written, or waits for its answer.
    let isPending: Bool

    /// Whether it is the last answer, which can be written anew.
    let isLast: Bool

    var id: Int { index }

    /// Return the turns of a conversation, and the question and answer that are pending.
    @MainActor
    static func rows(of session: Session) -> [ChatRow] {
        let turns = session.conversation.turns
        let asked = session.pending
        let kept = turns.prefix(asked?.index ?? turns.count)
        var rows = kept.enumerated().map { index, turn in
            ChatRow(
                index: index, isUser: turn.message.role == .user, text: turn.message.text,
                under: turn.message.role == .user ? "" : Words.under(turn), isPending: false,
                isLast: asked == nil && index == turns.count - 1)
        }
        if let asked {
            rows.append(
                ChatRow(
                    index: asked.index, isUser: true, text: asked.question, under: "", isPending: true,
                    isLast: false))
            rows.append(
                ChatRow(
                    index: asked.index + 1, isUser: false, text: asked.answer, under: Words.waiting(asked),
                    isPending: true, isLast: false))
        }
        return rows
    }
}
