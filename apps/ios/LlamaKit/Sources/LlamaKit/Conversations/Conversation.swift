/// The figures under an answer.
public struct AnswerFigures: Sendable, Equatable {
    /// Number of tokens of the answer.
    public let newTokens: Int

    /// Speed of the tokens after the first, in tokens a second; 0: there was none after it.
    public let tokensPerS: Double

    /// Seconds from sending to the first token.
    public let timeToFirstTokenS: Double

    /// Positions of the context that are taken after it.
    public let contextTokens: Int

    /// Positions that there are; nil: not known, as below.
    public let maxContext: Int?

    /// Memory that the app took at its end.
    public let memoryBytes: Int64?

    /// How hot the phone was then, in the system's word.
    public let thermal: String?

    /// Make them of their numbers; what is left out is not known.
    public init(
        newTokens: Int, tokensPerS: Double, timeToFirstTokenS: Double, contextTokens: Int,
        maxContext: Int? = nil, memoryBytes: Int64? = nil, thermal: String? = nil
    ) {
        self.newTokens = newTokens
        self.tokensPerS = tokensPerS
        self.timeToFirstTokenS = timeToFirstTokenS
        self.contextTokens = contextTokens
        self.maxContext = maxContext
        self.memoryBytes = memoryBytes
        self.thermal = thermal
    }
}

/// A message as it is kept.
public struct SavedTurn: Sendable, Equatable {
    /// What was said, and by whom.
    public let message: Message

    /// Whether it is all of it; false for an answer that was cut short, by the user or by the system.
    public let isWhole: Bool

    /// Figures of an answer; nil: none, or a message of the user.
    public let figures: AnswerFigures?

    /// Keep a message; without figures it is one of the user.
    public init(_ message: Message, isWhole: Bool = true, figures: AnswerFigures? = nil) {
        self.message = message
        self.isWhole = isWhole
        self.figures = figures
    }
}

/// A conversation as it is kept: everything that is needed to go on with it after a restart.
public struct Conversation: Sendable, Equatable, Identifiable {
    /// Name of its file, without an ending.
    public let id: String

    /// What the list shows.
    public var title: String

    /// Name of the bundle's folder.
    public var model: String

    /// Time of the last change, in milliseconds since 1970.
    public var changedMs: Int64

    /// System message; blank: none.
    public var system: String

    /// How its tokens are drawn.
    public var sampling: Sampling

    /// What was said, in order.
    public var turns: [SavedTurn]

    /// What the user had typed and not sent.
    public var draft: String

    /// Begin a conversation, or name all that was kept of one.
    public init(
        id: String, title: String, model: String, changedMs: Int64, system: String = "",
        sampling: Sampling = .defaults, turns: [SavedTurn] = [], draft: String = ""
    ) {
        self.id = id
        self.title = title
        self.model = model
        self.changedMs = changedMs
        self.system = system
        self.sampling = sampling
        self.turns = turns
        self.draft = draft
    }

    /// Return it as text that a person reads.
    public func toText() -> String {
        var text = title + "\n"
        if !system.isEmpty { text += "\n[system]\n\(system)\n" }
        for turn in turns {
            text += "\n[\(turn.message.role.rawValue)]\n\(turn.message.text)"
            text += turn.isWhole ? "\n" : " [...]\n"
        }
        return text
    }
}
