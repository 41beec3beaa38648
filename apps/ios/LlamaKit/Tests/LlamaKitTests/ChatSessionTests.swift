import Foundation
import Synchronization
import Testing

@testable import LlamaKit

/// A model that says when it goes.
private final class Leaving: Failing {
    private let left: Stop

    init(_ left: Stop) {
        self.left = left
        super.init()
    }

    deinit {
        left.request()
    }
}

@Suite("A session with a model")
struct ChatSessionTests {
    private let short: WriteSettings

    init() throws {
        short = try greedy(24)
    }

    /// Return what a chat without a past answers to a text.
    private func expected(_ text: String, after turns: [Message] = []) throws -> Completion {
        try Chat(Generator(Failing(700)), shortForm, turns: turns).send(text, short)
    }

    @Test func anAnswerComesInPiecesAndEndsWithItsFigures() async throws {
        let session = try await ChatSession(letters) { Failing(700) }
        let first = try await whole(session.send("one", short))
        let expected = try expected("one")
        #expect(first.text == expected.text)
        #expect(first.stats?.newTokens == expected.ids.count)
        #expect(await session.lastStats == first.stats)
        #expect(await session.turns == [Message(.user, "one"), Message(.assistant, expected.text)])
        let second = try await whole(session.send("two", short))
        #expect(second.stats?.reusedTokens ?? 0 > 0)
        #expect(try await second.text == self.expected("two", after: Array(session.turns[..<2])).text)
        #expect(try await session.cached < session.length)
    }

    @Test func answersAreWrittenInTheOrderInWhichTheyWereAskedFor() async throws {
        let session = try await ChatSession(letters) { Failing(700) }
        let answers = (0..<5).map { session.send("\($0)", short) }
        for answer in answers { try await whole(answer) }
        #expect(await session.turns.filter { $0.role == .user }.map(\.text) == ["0", "1", "2", "3", "4"])
    }

    @Test func theConversationIsEdited() async throws {
        let session = try await ChatSession(letters, system: "brief") { Failing(700) }
        try await whole(session.send("one", short))
        try await whole(session.send("two", short))
        let again = try await whole(session.regenerate(short))
        #expect(await session.turns.last?.text == again.text)
        let edited = try await whole(session.edit(0, "1", short))
        #expect(await session.turns == [Message(.user, "1"), Message(.assistant, edited.text)])
        #expect(try await session.undo() == "1")
        #expect(await session.turns.isEmpty)
        try await session.change(system: "long")
        #expect(await session.system == "long")
        try await session.converse(turns: [Message(.user, "a"), Message(.assistant, "b")])
        #expect(await session.turns.count == 2)
        #expect(await session.system == "")
        let full = try await session.overflow(String(repeating: "x", count: 690), short)
        #expect(full?.tooLong == .message)
        try await session.dropOldest(2)
        #expect(try await session.length == 0)
        await #expect(throws: PromptError.self) { try await session.converse(turns: [Message(.user, "a")]) }
    }

    @Test func whatCannotBeAnsweredEndsThePiecesWithAnError() async throws {
        let session = try await ChatSession(letters) { Failing(700) }
        await #expect(throws: PromptError.self) { try await whole(session.send(" ", short)) }
        await #expect(throws: PromptError.self) { try await whole(session.regenerate(short)) }
        await #expect(throws: PromptError.self) { try await whole(session.edit(0, "a", short)) }
        await #expect(throws: PromptError.self) { try await whole(session.write(after: "", short)) }
        #expect(await session.turns.isEmpty)
        #expect(await session.lastStats == nil)
    }

    @Test func halfAnAnswerIsKeptWhenTheRuntimeFails() async throws {
        let session = try await ChatSession(letters) {
            let model = Failing(700)
            model.callsLeft = 4
            return model
        }
        var text = ""
        await #expect(throws: EngineError("the runtime failed", hint: "")) {
            for try await piece in session.send("one", short) {
                if case .text(let more) = piece { text += more }
            }
        }
        #expect(!text.isEmpty)
        #expect(await session.turns.last?.text == text)
        #expect(try await session.isTrue())
    }

    @Test func stoppingEndsAnAnswerAndThoseThatWait() async throws {
        let hold = Hold()
        hold.step(after: 3)
        let session = try await ChatSession(letters) { Held(hold) }
        let first = session.send("one", short)
        let second = session.send("two", short)
        var text = ""
        var reason: StopReason?
        for try await piece in first {
            switch piece {
            case .text(let more):
                text += more
                session.stop()
            case .end(let stats): reason = stats.stopReason
            case .reading: break
            }
        }
        #expect(reason == .interrupted)
        #expect(try await whole(second).stats?.stopReason == .interrupted)
        #expect(await session.turns == [Message(.user, "one"), Message(.assistant, text)])
        #expect(try await whole(session.send("three", short)).stats?.stopReason != .interrupted)
    }

    @Test func aPromptIsStoppedBetweenItsPieces() async throws {
        let hold = Hold()
        hold.step(after: 1)
        let session = try await ChatSession(letters) { Held(hold) }
        var seen: [Piece] = []
        for try await piece in session.send(String(repeating: "x", count: 500), short) {
            seen.append(piece)
            if piece == .reading(done: 128, total: 506) { session.stop() }
        }
        #expect(seen.prefix(2) == [.reading(done: 0, total: 506), .reading(done: 128, total: 506)])
        #expect(seen.count == 3)
        #expect(await session.lastStats?.stopReason == .interrupted)
        #expect(try await session.use { $0.position } == pieceTokens)
        #expect(await session.turns.isEmpty)
        #expect(try await session.isTrue())
    }

    @Test func whoeverLeavesTheLoopStopsTheAnswer() async throws {
        let hold = Hold()
        hold.step(after: 6)
        let session = try await ChatSession(letters) { Held(hold) }
        var text = ""
        for try await piece in session.send("one", short) {
            if case .text(let more) = piece {
                text = more
                break
            }
        }
        let kept = try #require(await session.turns.last?.text)
        #expect(try kept == expected("one").text.prefix(kept.count))
        #expect(!text.isEmpty && kept.hasPrefix(text))
        #expect(await session.lastStats?.stopReason == .interrupted)
        #expect(try await session.isTrue())
    }

    @Test func whoeverCancelsTheirTaskStopsTheAnswer() async throws {
        let hold = Hold()
        hold.step(after: 6)
        let session = try await ChatSession(letters) { Held(hold) }
        let began = Mutex(false)
        let reader = Task {
            var text = ""
            for try await piece in session.send("one", short) {
                if case .text(let more) = piece {
                    text += more
                    began.withLock { $0 = true }
                }
            }
            return text
        }
        while !began.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(1)) }
        reader.cancel()
        let text = try await reader.value
        let kept = try #require(await session.turns.last?.text)
        #expect(!text.isEmpty && kept.hasPrefix(text))
        #expect(await session.lastStats?.stopReason == .interrupted)
        #expect(try await session.isTrue())
    }

    @Test func aModelWithoutTurnsGoesOnWithText() async throws {
        let plain = ChatFormat(turns: nil, reason: "it is a base model")
        let model = ChatModel(tokenizer: LetterTokenizer(), format: plain, stopIds: [])
        let session = try await ChatSession(model) { RowModel(vocabSize: 256) }
        let cache = try KeptCache(RowModel(vocabSize: 256))
        let expected = try Generator(cache, tokenizer: LetterTokenizer(), stopIds: [])
            .begin("ab", short).finish()
        #expect(try await whole(session.write(after: "ab", short)).text == expected.text)
        await #expect {
            try await whole(session.send("a", short))
        } throws: {
            (($0 as? PromptError)?.message ?? "").contains("it is a base model")
        }
        #expect(await session.turns.isEmpty)
    }

    @Test func aClosedSessionHasNoModel() async throws {
        let left = Stop()
        let session = try await ChatSession(letters) { Leaving(left) }
        let answer = session.send("one", short)
        #expect(!left.isRequested)
        await session.close()
        #expect(left.isRequested)
        _ = try await whole(answer)
        await #expect(throws: EngineError("the model was closed", hint: "Load it again.")) {
            try await whole(session.send("two", short))
        }
        await #expect(throws: EngineError.self) { try await session.use { $0.position } }
    }

    @Test func aModelThatCannotBeLoadedIsNoSession() async throws {
        await #expect(throws: EngineError("0x23", hint: "Export it again.")) {
            _ = try await ChatSession(letters) { throw EngineError("0x23", hint: "Export it again.") }
        }
        let wide = ChatModel(
            tokenizer: LetterTokenizer(), format: shortForm, stopIds: [], maxContext: 65)
        await #expect(throws: BadInput.self) { _ = try await ChatSession(wide) { RowModel() } }
        let half = [Message(.user, "a")]
        await #expect(throws: PromptError.self) {
            _ = try await ChatSession(letters, turns: half) { Failing() }
        }
    }

    @Test func stepsBlockNobodyElse() async throws {
        let gate = DispatchSemaphore(value: 0)
        final class Waiting: Failing {
            let gate: DispatchSemaphore
            init(_ gate: DispatchSemaphore) {
                self.gate = gate
                super.init()
            }
            override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
                if gate.wait(timeout: .now() + 20) == .timedOut { throw EngineError("nobody came", hint: "") }
                return try super.step(ids, at: position)
            }
        }
        // More than there are threads for tasks.
        let count = ProcessInfo.processInfo.activeProcessorCount + 2
        var answers: [Pieces] = []
        for _ in 0..<count {
            answers.append(try await ChatSession(letters) { Waiting(gate) }.send("one", greedy(1)))
        }
        await Task { for _ in 0..<count { gate.signal() } }.value
        for answer in answers { #expect(try await whole(answer).stats?.newTokens == 1) }
    }

    @Test func aTimeIsToldByTheClockThatWasGiven() async throws {
        let time = LocalTime(year: 2024, month: 2, day: 29)
        let turn = Turn(prefix: [.time("%d.%m.%Y ")], suffix: [])
        let form = ChatFormat(
            turns: Turns(
                begin: [], noSystem: [], system: nil, user: turn, assistant: turn, answer: [], trim: [],
                thoughtsEnd: nil),
            reason: nil)
        let model = ChatModel(tokenizer: LetterTokenizer(), format: form, stopIds: [])
        let ticks = Mutex<UInt64>(0)
        let session = try await ChatSession(
            model, now: { time },
            clock: {
                ticks.withLock { ticks in
                    ticks += 1_000_000_000
                    return ticks
                }
            }, engine: { RowModel(vocabSize: 256, maxContext: 256) })
        let stats = try await whole(session.send("x", greedy(3))).stats
        #expect(stats?.timeToFirstTokenS == 1)
        #expect(stats?.decodeTokensPerS == 1)
        let read = try await session.use { $0.tokens.prefix(12) }
        #expect(read == "29.02.2024 x".utf8.map(Int32.init)[...])
    }
}
