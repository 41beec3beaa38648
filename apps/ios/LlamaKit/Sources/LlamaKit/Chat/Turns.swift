/// Who says something in a dialog, with its name in a manifest and in a chat template.
public enum Role: String, CaseIterable, Sendable {
    case system
    case user
    case assistant
}

/// What was said in a dialog.
public struct Message: Sendable, Equatable {
    public let role: Role
    public let text: String

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

/// One model's way to write dialogs, as the manifest's `chat` has it.
///
/// The first message may be a system message, which is not blank; then user and assistant take turns.
public struct Turns: Sendable {
    /// Beginning of every dialog.
    let begin: [FormPart]

    /// What follows it where there is no system message.
    let noSystem: [FormPart]

    /// What is around a message of each role.
    let system: Turn
    let user: Turn
    let assistant: Turn

    /// What asks for an answer, at the end.
    let answer: [FormPart]

    /// Whether white space around a message is taken away, as Python's `str.strip` does.
    let trim: Bool

    /// Return what stands around a message of a role.
    func around(_ role: Role) -> Turn {
        switch role {
        case .system: system
        case .user: user
        case .assistant: assistant
        }
    }
}

extension Turns {
    private static let mostParts = 256
    private static let shownCharacters = 80

    /// Read the key `turns` of a manifest's `chat`.
    ///
    /// - Parameter vocabSize: number of token ids
    /// - Throws: ``BadInput`` if a key is missing or of another form, or a token is outside the vocabulary
    init(_ turns: JsonFields, vocabSize: Int) throws {
        func parts(_ owner: JsonFields, _ key: String) throws -> [FormPart] {
            try Self.parts(owner, key, vocabSize)
        }
        func turn(_ role: Role) throws -> Turn {
            let owner = try turns.fields(role.rawValue)
            return Turn(prefix: try parts(owner, "prefix"), suffix: try parts(owner, "suffix"))
        }
        system = try turn(.system)
        user = try turn(.user)
        assistant = try turn(.assistant)
        begin = try parts(turns, "begin")
        noSystem = try parts(turns, "no_system")
        answer = try parts(turns, "answer")
        trim = try turns.bool("trim")
    }

    private static func parts(_ owner: JsonFields, _ key: String, _ vocabSize: Int) throws -> [FormPart] {
        let found = try owner.list(key)
        if found.count > mostParts {
            throw wrong(owner, key, "at most \(mostParts) pieces", "\(found.count)")
        }
        return try found.map { try part($0, owner, key, vocabSize) }
    }

    private static func part(
        _ value: Json, _ owner: JsonFields, _ key: String, _ vocabSize: Int
    ) throws -> FormPart {
        switch value {
        case .text(let text):
            if text.isEmpty { throw wrong(owner, key, "texts that can be encoded", value.write()) }
            return .text(text)
        case .number(let number):
            guard let id = Int32(number.text), id >= 0, Int(id) < vocabSize else {
                throw wrong(owner, key, "a token of the vocabulary of \(vocabSize)", number.text)
            }
            return .token(id)
        case .object(let object):
            guard let format = object["strftime"]?.asText, object.entries.count == 1, isTimeFormat(format)
            else {
                throw wrong(owner, key, "a time in words of strftime that this app knows", value.write())
            }
            return .time(format)
        default: throw wrong(owner, key, "token ids, texts and times", value.kind)
        }
    }

    private static func wrong(
        _ owner: JsonFields, _ key: String, _ expected: String, _ found: String
    ) -> BadInput {
        BadInput(
            "\(owner.at(key)): expected \(expected), found \(found.prefix(shownCharacters))",
            hint: "Export the model again, or update the app.")
    }
}
