import Testing

@testable import LlamaKit

private struct ScreenGone: Error {}

@Suite("Turns of a user and a model")
struct ChatTests {
    private let short: WriteSettings

    init() throws {
        short = try greedy(24)
    }

    private func chat(
        _ model: RowModel = Failing(), system: String = "", turns: [Message] = []
    ) throws -> Chat {
        try Chat(Generator(model), shortForm, system: system, turns: turns)
    }

    private func texts(_ chat: Chat) -> [String] { chat.turns.map(\.text) }

    private func stopped() -> Stop {
        let stop = Stop()
        stop.request()
        return stop
    }

    @Test func aConversationGrowsAndOnlyWhatIsNewIsRead() throws {
        let chat = try chat(system: "brief")
        let first = try chat.send("one", short)
        let before = try chat.cached
        let length = try chat.length
        #expect((1..<length).contains(before))
        let second = try chat.send("two", short)
        #expect(second.stats.reusedTokens >= before)
        #expect(texts(chat) == ["one", first.text, "two", second.text])
        let ids = try shortForm.encode(
            [Message(.system, "brief")] + chat.turns, LetterTokenizer(), asks: false)
        #expect(try chat.length == ids.count)
    }

    @Test func everyAnswerIsThatOfACacheWithoutAPast() throws {
        let chat = try chat()
        try chat.send("one", short)
        try chat.send("two", short)
        let answer = try chat.regenerate(short)
        let fresh = try self.chat(turns: Array(chat.turns[..<2]))
        #expect(try fresh.send("two", short).ids == answer.ids)
    }

    @Test func answeringAgainDrawsOtherNumbersAndTheSeedCountsUp() throws {
        let sampling = try Sampling(temperature: 1.5, topP: 1, seed: 10)
        let seeded = try WriteSettings(sampling: sampling, maxTokens: 12)
        let chat = try chat(Failing(steps: 4096))
        let answers = try [chat.send("one", seeded), chat.regenerate(seeded), chat.regenerate(seeded)]
        #expect(answers.map(\.stats.seed) == [10, 11, 12])
        #expect(Set(answers.map(\.ids)).count == 3)
        #expect(texts(chat) == ["one", answers[2].text])
        let last = try WriteSettings(sampling: Sampling(temperature: 1, seed: .max), maxTokens: 2)
        #expect(try chat.send("two", last).stats.seed == 2)
    }

    @Test func anEditForgetsWhatCameAfterIt() throws {
        let chat = try chat()
        for text in ["one", "two", "three"] { try chat.send(text, short) }
        let answer = try chat.edit(2, "2", short)
        #expect(chat.turns.count == 4)
        #expect(texts(chat)[2...] == ["2", answer.text])
        for place in [1, 4, -1] {
            let message = "there is no message of the user at place \(place) of 4"
            #expect(throws: PromptError(message, hint: "Choose another one.")) {
                try chat.edit(place, "x", short)
            }
            if place != 4 { #expect(throws: PromptError.self) { try chat.overflow("x", short, at: place) } }
        }
    }

    @Test func undoingGivesTheMessageBackAndResettingKeepsTheSystemMessage() throws {
        let chat = try chat(system: "brief")
        try chat.send("one", short)
        let kept = texts(chat)
        try chat.send("two", short)
        #expect(try chat.undo() == "two")
        #expect(texts(chat) == kept)
        chat.reset()
        #expect(chat.turns.isEmpty)
        #expect(chat.system == "brief")
        #expect(try chat.length == 0)
        #expect(try chat.cached == 0)
        #expect(throws: PromptError.self) { try chat.undo() }
        #expect(throws: PromptError("there is no answer yet", hint: "Say something first.")) {
            try chat.regenerate(short)
        }
    }

    @Test func halfAnAnswerIsKeptAndNoneLeavesNoTrace() throws {
        let chat = try chat()
        let stop = Stop()
        let half = try chat.send("one", short, stop: stop, onPiece: { _ in stop.request() })
        #expect(half.stats.stopReason == .interrupted)
        #expect(!half.text.isEmpty)
        #expect(texts(chat) == ["one", half.text])
        try chat.send("two", short, stop: stopped())
        #expect(texts(chat) == ["one", half.text])
        try chat.regenerate(short, stop: stopped())
        #expect(texts(chat) == ["one", half.text])
    }

    @Test func anAnswerThatEndsAtOnceIsAnAnswer() throws {
        let generator = Generator(
            try KeptCache(Failing()), tokenizer: LetterTokenizer(), stopIds: Set(0..<258))
        let chat = try Chat(generator, shortForm)
        #expect(try chat.send("one", short).stats.stopReason == .stopToken)
        #expect(texts(chat) == ["one", ""])
    }

    @Test func halfAnAnswerIsKeptWhenTheRuntimeFailsOrWhoShowsIt() throws {
        let model = Failing()
        let chat = try chat(model)
        model.callsLeft = 4
        #expect(throws: EngineError.self) { try chat.send("one", short) }
        #expect(chat.turns.count == 2)
        model.callsLeft = 0
        #expect(throws: EngineError.self) { try chat.regenerate(short) }
        #expect(chat.turns.count == 2)
        model.callsLeft = .max
        #expect(throws: ScreenGone.self) { try chat.send("two", short, onPiece: { _ in throw ScreenGone() }) }
        #expect(chat.turns.count == 4)
        #expect(chat.turns.last?.text.isEmpty == false)
    }

    @Test func aContextThatIsFullIsRefusedBeforeAnythingIsRead() throws {
        let model = Failing(96)
        let chat = try chat(model)
        try chat.send("one", short)
        let calls = model.calls.count
        let long = String(repeating: "x", count: 60)
        let found = try #require(try chat.overflow(long, short))
        #expect(found.droppedTurns == 2)
        #expect {
            try chat.send(long, short)
        } throws: { error in
            guard let error = error as? PromptError else { return false }
            return error.message.contains("\(found.needed) tokens long, and the context has 96")
                && error.hint.contains("Drop the oldest turns")
        }
        #expect(model.calls.count == calls)
        try chat.dropOldest(2)
        try chat.send(long, short)
        #expect(chat.turns.count == 2)
        let longer = try chat.overflow(String(repeating: "x", count: 90), short)
        #expect(longer?.hint == "Shorten the message, or choose a larger context.")
        for count in [1, 4, -2] { #expect(throws: PromptError.self) { try chat.dropOldest(count) } }
    }

    @Test func whatIsNoMessageAndAConversationOfAnotherFormAreRefused() throws {
        let chat = try chat()
        for text in ["", " \n", "\u{3000}"] {
            #expect(throws: PromptError.self) { try chat.send(text, short) }
        }
        let half = [Message(.user, "a")]
        #expect(throws: PromptError.self) { try self.chat(turns: half) }
        let turned = [Message(.assistant, "a"), Message(.user, "b")]
        #expect(throws: PromptError.self) { try self.chat(turns: turned) }
        let plain = ChatFormat(turns: nil, reason: "it is a base model")
        #expect {
            try Chat(Generator(Failing()), plain)
        } throws: {
            (($0 as? PromptError)?.message ?? "").contains("it is a base model")
        }
    }

    @Test func aSystemMessageIsRefusedBeforeTheFirstQuestionWhereThereCanBeNone() throws {
        let error = PromptError(
            "this model's dialogs have no system message", hint: "Say it in your first message instead.")
        #expect(throws: error) { try Chat(Generator(Failing()), formWithoutSystem, system: "Be brief.") }
        let chat = try Chat(Generator(Failing()), formWithoutSystem, system: " ")
        try chat.send("a", short)
        #expect(throws: error) { try chat.change(system: "Be brief.") }
        #expect(chat.system == " ")
        try chat.send("b", short)
        #expect(chat.turns.count == 4)
    }

    @Test func anotherSystemMessageIsReadBeforeTheNextAnswer() throws {
        let chat = try chat(system: "one")
        try chat.send("a", short)
        try chat.change(system: "two")
        let other = try self.chat(system: "two", turns: chat.turns)
        #expect(try other.send("b", short).ids == chat.send("b", short).ids)
        try chat.change(system: " ")
        #expect(try chat.cached == 0)
    }
}

/// Whatever happens, the cache holds what its record says, and the next answer is right.
@Suite("A cache after hundreds of cancels, edits, failures and rewinds")
struct ChatPropertyTests {
    private let short: WriteSettings

    init() throws {
        short = try greedy(24)
    }

    @Test func isTrue() throws {
        var cancelled = 0
        var failed = 0
        for seed in 0..<40 {
            var dice = Dice(seed)
            let model = Failing(700)
            let generator = try Generator(model)
            let chat = try Chat(generator, shortForm)
            for _ in 0..<25 {
                model.callsLeft = dice.below(4) == 0 ? dice.below(6) : .max
                do {
                    let completion = try act(chat, generator, &dice)
                    if completion.stats.stopReason == .interrupted { cancelled += 1 }
                } catch is EngineError {
                    failed += 1
                } catch is ScreenGone {
                    failed += 1
                }
                let rows = generator.cache.tokens.enumerated().map { row($1, $0) }
                try #require(rows == Array(model.rows[..<rows.count]), "seed \(seed)")
            }
            model.callsLeft = .max
            let fresh = try Chat(
                Generator(Failing(700)), shortForm, system: chat.system, turns: chat.turns)
            try #require(try fresh.send("end", short).ids == chat.send("end", short).ids, "seed \(seed)")
        }
        #expect(cancelled > 100)
        #expect(failed > 100)
    }

    private func act(_ chat: Chat, _ generator: Generator, _ dice: inout Dice) throws -> Completion {
        let letters = 1 + dice.below(dice.below(5) == 0 ? 200 : 9)
        let text = (0..<letters).map { _ in ["a", "b", "c"][dice.below(3)] }.joined()
        let stop = Stop()
        let throwsAtEnd = dice.below(8) == 0
        var left = dice.below(3) == 0 ? dice.below(5) : Int.max
        if left == 0 { stop.request() }
        func isEnd() -> Bool {
            left -= 1
            return left < 0
        }
        let onPiece: (String) throws -> Void = { _ in
            guard isEnd() else { return }
            if throwsAtEnd { throw ScreenGone() }
            stop.request()
        }
        let onProgress: (Int, Int) -> Void = { _, _ in if isEnd() { stop.request() } }
        let cache = generator.cache
        if dice.below(6) == 0 { try cache.rewind(to: dice.below(cache.position + 1)) }
        if dice.below(9) == 0 { try chat.change(system: dice.below(2) == 0 ? "" : String(text.prefix(4))) }
        while try chat.length > 400 { try chat.dropOldest(2) }
        switch chat.turns.isEmpty ? 0 : dice.below(5) {
        case 0, 1: return try chat.send(text, short, stop: stop, onProgress: onProgress, onPiece: onPiece)
        case 2: return try chat.regenerate(short, stop: stop, onProgress: onProgress, onPiece: onPiece)
        case 3:
            let index = 2 * dice.below(chat.turns.count / 2)
            return try chat.edit(index, text, short, stop: stop, onProgress: onProgress, onPiece: onPiece)
        default:
            try chat.undo()
            return try chat.send(text, short, stop: stop, onProgress: onProgress, onPiece: onPiece)
        }
    }
}
