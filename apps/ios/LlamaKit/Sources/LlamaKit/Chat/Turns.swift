/// Who says something in a dialog, with its name in a manifest and in a chat template.
public enum Role: String, CaseIterable, Sendable {
    case system
    case user
    case assistant
}

/// What was said in a dialog.
public struct Message: Sendable, Equatable {
    /// Who says it.
    public let role: Role

    /// What is said.
    public let text: String

    /// Make a message.
    public init(_ role: Role, _ text: String) {
        self.role = role
        self.text = text
    }

    /// Two messages are the same if the model reads the same, so by their bytes.
    public static func == (left: Message, right: Message) -> Bool {
        left.role == right.role && sameBytes(left.text, right.text)
    }
}

/// A part of a dialog that the model's form prescribes.
public enum FormPart: Sendable {
    /// A token, such as the one that ends a turn.
    case token(Int32)

    /// Text, which is encoded together with its neighbours.
    case text(String)

    /// The local time at the moment of asking, in strftime's words.
    case time(String)
}

/// What is written around a message of one role.
public struct Turn: Sendable {
    let prefix: [FormPart]
    let suffix: [FormPart]
}

/// Where a system message stands.
enum SystemPlace: Sendable {
    /// It has a turn of its own.
    case turn(Turn)

    /// It has none, and stands before what one message of the user says: the last one, or the first.
    case insideUser(isInLast: Bool, before: String, after: String)
}

/// One model's way to write dialogs, as the manifest's `chat` has it.
///
/// The first message may be a system message, which is not blank; then user and assistant take turns.
public struct Turns: Sendable {
    /// Beginning of every dialog.
    let begin: [FormPart]

    /// What follows it where there is no turn of the system.
    let noSystem: [FormPart]

    /// What is around a system message, or where else it stands; nil: there can be none.
    let system: SystemPlace?

    /// What is around a user's message.
    let user: Turn

    /// What is around an answer.
    let assistant: Turn

    /// What asks for an answer, at the end.
    let answer: [FormPart]

    /// Roles whose messages lose the white space around them, as Python's `str.strip` takes it.
    let trim: Set<Role>

    /// Text up to whose last place an answer is left out; nil: all of it is written.
    let thoughtsEnd: String?

    /// Return the messages that have turns, each with what is written of it.
    ///
    /// - Throws: ``PromptError`` if there is a system message and can be none
    func told(_ messages: [Message]) throws -> [(turn: Turn, text: String)] {
        guard case .insideUser(let isInLast, let before, let after)? = system, let first = messages.first,
            first.role == .system
        else { return try messages.map { (try turn(of: $0.role), written($0)) } }
        let others = messages.dropFirst()
        let holds = isInLast ? others.lastIndex { $0.role == .user } : others.firstIndex { $0.role == .user }
        return try others.indices.map { index in
            let message = others[index]
            let said = index == holds ? before + written(first) + after + message.text : message.text
            return (try turn(of: message.role), written(Message(message.role, said)))
        }
    }

    /// Return whether a dialog begins with a turn of the system.
    func opensWithSystem(_ messages: [Message]) -> Bool {
        guard case .turn? = system else { return false }
        return messages.first?.role == .system
    }

    private func turn(of role: Role) throws -> Turn {
        switch (role, system) {
        case (.user, _): return user
        case (.assistant, _): return assistant
        case (.system, .turn(let turn)?): return turn
        case (.system, _):
            throw PromptError(
                "this model's dialogs have no system message", hint: "Say it in your first message instead.")
        }
    }

    /// Return what is written of a message: without thoughts, and without white space around it.
    private func written(_ message: Message) -> String {
        let isThoughtful = message.role == .assistant && thoughtsEnd != nil
        let text = isThoughtful ? afterLast(thoughtsEnd ?? "", in: message.text) : message.text
        return trim.contains(message.role) ? stripped(text) : text
    }
}

/// Return what follows the last place of a mark in a text; all of it where there is none.
private func afterLast(_ mark: String, in text: String) -> String {
    let bytes = Array(text.utf8)
    let wanted = Array(mark.utf8)
    let ends = stride(from: bytes.count, through: wanted.count, by: -1)
    let end = ends.first { bytes[($0 - wanted.count)..<$0].elementsEqual(wanted) }
    return String(decoding: bytes[(end ?? 0)...], as: UTF8.self)
}
