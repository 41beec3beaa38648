import Foundation

/// How dialogs with a model are written: its turns, or why there are none.
public struct ChatFormat: Sendable {
    private static let shownCharacters = 80

    /// The model's turns; nil: it is no model to chat with, or its template cannot be written down.
    public let turns: Turns?

    /// Why there are no turns; nil where there are.
    public let reason: String?

    /// The form of a bundle whose exporter was too old to say.
    public static let unknown = ChatFormat(
        turns: nil, reason: "the bundle is older than the key chat of its manifest")

    /// Whether a dialog may have a system message.
    public var takesSystem: Bool { turns?.system != nil }

    init(turns: Turns?, reason: String?) {
        self.turns = turns
        self.reason = reason
    }

    /// Read the key `chat` of a manifest.
    ///
    /// - Parameters:
    ///   - chat: the key's object
    ///   - vocabSize: number of token ids
    /// - Throws: ``BadInput`` if a key is missing or of another form, or a token is outside the vocabulary
    public init(_ chat: JsonFields, vocabSize: Int) throws {
        if chat.contains("turns") {
            turns = try Turns(chat.fields("turns"), vocabSize: vocabSize)
            reason = nil
        } else {
            turns = nil
            reason = try chat.text("reason")
        }
    }

    /// Encode a dialog; special tokens that somebody typed stay text.
    ///
    /// - Parameters:
    ///   - messages: what was said, oldest first
    ///   - asks: whether an answer is asked for at the end
    ///   - now: local time to write
    /// - Returns: token ids `[n]`, equal to those of the model's chat template
    /// - Throws: ``PromptError`` if the model has no turns, or none for a system message; or the messages are
    ///   not of this order
    public func encode(
        _ messages: [Message], _ tokenizer: any Tokenizer, asks: Bool = true,
        now: LocalTime = LocalTime(Date())
    ) throws -> [Int32] {
        var ids: [Int32] = []
        for part in try write(messages, asks: asks, now: now) {
            switch part {
            case .token(let id): ids.append(id)
            case .text(let text), .time(let text): ids += tokenizer.encode(text, continues: !ids.isEmpty)
            }
        }
        return ids
    }

    /// Write a dialog as tokens and texts, with no text beside another one, and no time.
    ///
    /// - Throws: ``PromptError`` as ``encode(_:_:asks:now:)``
    func write(_ messages: [Message], asks: Bool, now: LocalTime) throws -> [FormPart] {
        guard let form = turns else {
            throw PromptError(
                "dialogs with this model cannot be written: \(reason ?? "its bundle does not say how")",
                hint: "Give it a text to go on with instead.")
        }
        try requireOrder(messages, asks)
        var written = JoinedParts(now: now)
        let told = try form.told(messages)
        try written.add(form.begin)
        if !form.opensWithSystem(messages) { try written.add(form.noSystem) }
        for (turn, text) in told { try written.add(turn.prefix + [.text(text)] + turn.suffix) }
        if asks { try written.add(form.answer) }
        return written.joined()
    }

    private func requireOrder(_ messages: [Message], _ asks: Bool) throws {
        let first = messages.first?.role == .system ? 1 : 0
        let isInOrder = messages.dropFirst(first).enumerated().allSatisfy { place, message in
            message.role == (place % 2 == 0 ? .user : .assistant)
        }
        if isInOrder && messages.count > first && (!asks || messages.last?.role == .user) { return }
        let roles = messages.map(\.role.rawValue).joined(separator: ", ").prefix(Self.shownCharacters)
        throw PromptError(
            "the dialog: expected user and assistant in turn, the user \(asks ? "last" : "first"); "
                + "found \(roles.isEmpty ? "no message" : roles)",
            hint: "Begin with what the user says.")
    }
}

/// Collects parts: times are written, and neighbouring texts become one.
private struct JoinedParts {
    let now: LocalTime
    private var parts: [FormPart] = []
    private var text = ""

    init(now: LocalTime) {
        self.now = now
    }

    mutating func add(_ more: [FormPart]) throws {
        for part in more {
            switch part {
            case .text(let more): text += more
            case .time(let format): text += try formatTime(format, now)
            case .token:
                endText()
                parts.append(part)
            }
        }
    }

    mutating func joined() -> [FormPart] {
        endText()
        return parts
    }

    private mutating func endText() {
        if !text.isEmpty { parts.append(.text(text)) }
        text = ""
    }
}
