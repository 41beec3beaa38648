import LlamaKit
import Testing

@testable import LlamaAppCore

@MainActor
struct ChattingTests {
    @Test func aMessageIsAnsweredWithFigures() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.session.draft = "Is it so?"
        #expect(app.session.canSend)
        #expect(app.session.send())
        #expect(app.session.pending?.question == "Is it so?")
        #expect(app.session.draft.isEmpty)
        #expect(await app.answered())
        let turns = app.session.conversation.turns
        #expect(turns.map(\.message) == [Message(.user, "Is it so?"), Message(.assistant, "Yes. It is.")])
        let figures = try #require(turns.last?.figures)
        #expect(turns.last?.isWhole == true)
        #expect(figures.newTokens == 11)
        #expect(figures.maxContext == 512)
        #expect(figures.memoryBytes == 123)
        #expect(figures.thermal == "fair")
        #expect(app.session.conversation.title == "Is it so?")
        #expect(app.host.state.isReady)
    }

    @Test func theSecondOfTwoTapsDoesNothing() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.session.draft = "one"
        #expect(app.session.send())
        app.session.draft = "two"
        #expect(!app.session.send())
        #expect(!app.session.regenerate())
        #expect(!app.session.begin())
        #expect(await app.answered())
        #expect(app.session.conversation.turns.map(\.message.text) == ["one", "Yes. It is."])
        #expect(app.session.draft == "two")
    }

    @Test func nothingIsSentWithoutAModelOrText() async throws {
        let app = try FakeApp()
        app.session.draft = "one"
        #expect(!app.session.canSend)
        #expect(!app.session.send())
        try await app.loaded()
        app.session.draft = " \n"
        #expect(!app.session.send())
        #expect(app.session.pending == nil)
    }

    @Test func anAnswerStopsBeforeTheNextStepAndIsKept() async throws {
        let app = try FakeApp()
        app.engines.change {
            $0.answer = String(repeating: "a", count: 100_000)
            $0.stepSeconds = 0.003
        }
        try await app.loaded()
        try app.parts.settings.keep(contextTokens: 512, maxTokens: 400)
        app.session.draft = "go"
        app.session.send()
        #expect(await app.until { (app.session.pending?.answer.count ?? 0) > 2 })
        app.session.stop()
        #expect(await app.answered())
        let answer = try #require(app.session.conversation.turns.last)
        #expect(!answer.isWhole)
        #expect(answer.message.text.count < 400)
        let steps = app.engines.now.steps
        try await Task.sleep(for: .milliseconds(50))
        #expect(app.engines.now.steps == steps)
    }

    @Test func aStopAtOnceGivesTheQuestionBack() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.session.draft = "go"
        app.session.send()
        app.session.stop()
        #expect(await app.answered())
        #expect(app.session.conversation.turns.isEmpty)
        #expect(app.session.draft == "go")
        #expect(app.host.state.isReady)
    }

    @Test func answersAreWrittenAnewAndQuestionsEdited() async throws {
        let app = try FakeApp()
        try await app.loaded()
        for text in ["one", "two"] {
            app.session.draft = text
            app.session.send()
            #expect(await app.answered())
        }
        app.engines.change { $0.answer = "No." }
        #expect(app.session.regenerate())
        #expect(await app.answered())
        #expect(app.session.conversation.turns.map(\.message.text) == ["one", "Yes. It is.", "two", "No."])
        #expect(app.session.edit(0, "three"))
        #expect(await app.answered())
        #expect(app.session.conversation.turns.map(\.message.text) == ["three", "No."])
        #expect(!app.session.edit(7, "nowhere"))
    }

    @Test func aFailureKeepsTheHalfAndSaysWhatToDo() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.engines.change { $0.failAtStep = $0.steps + 4 }
        app.session.draft = "one"
        app.session.send()
        #expect(await app.answered())
        #expect(app.session.problem?.hint == "Load it again.")
        #expect(app.session.conversation.turns.map(\.message.text) == ["one", "Yes"])
        #expect(app.session.conversation.turns.last?.isWhole == false)
        app.session.dismiss()
        #expect(app.session.problem == nil)
        // The log has the fault, and no word of what was said.
        #expect(app.parts.report().contains("answer: the runtime failed"))
        #expect(!app.parts.report().contains("Yes"))
    }

    @Test func aModelWithoutTurnsGoesOnWithTheText() async throws {
        let app = try FakeApp()
        await app.parts.askToLoad(try app.push("base", chats: false))
        #expect(app.host.state.loaded?.noChatReason == "it is a base model")
        app.session.draft = "x"
        app.session.send()
        #expect(await app.answered())
        // The fake counts the letters since it was asked, and here nothing asks.
        #expect(app.session.conversation.turns.last?.message.text == "es. It is.")
    }

    @Test func aFullContextAsksWhatToDo() async throws {
        let app = try FakeApp()
        try app.parts.settings.keep(contextTokens: 128, maxTokens: 16)
        try await app.loaded()
        let long = String(repeating: "x", count: 60)
        app.session.draft = long
        app.session.send()
        #expect(await app.answered())
        app.session.draft = long
        app.session.send()
        #expect(await app.answered())
        let full = try #require(app.session.full)
        #expect(full.overflow.droppedTurns == 2)
        #expect(app.session.draft == long)
        app.session.dropOldest()
        #expect(await app.answered())
        #expect(app.session.full == nil)
        #expect(app.session.conversation.turns.map(\.message.text) == [long, "Yes. It is."])
        app.session.draft = long
        app.session.send()
        #expect(await app.answered())
        let old = app.session.conversation.id
        app.session.beginAnew()
        #expect(await app.answered())
        #expect(app.session.conversation.id != old)
        #expect(app.session.conversation.turns.count == 2)
        app.session.draft = String(repeating: "y", count: 300)
        app.session.send()
        #expect(await app.answered())
        #expect(app.session.full?.overflow.keptTokens == nil)
        app.session.shorten()
        #expect(app.session.full == nil)
        #expect(app.session.draft.count == 300)
    }

    @Test func conversationsSurviveARestart() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.session.draft = "one"
        app.session.send()
        #expect(await app.answered())
        app.session.draft = "half a thought"
        await app.restart()
        #expect(app.session.conversation.turns.map(\.message.text) == ["one", "Yes. It is."])
        #expect(app.session.draft == "half a thought")
        #expect(app.host.state.loaded?.name == "one")
    }

    @Test func conversationsAreRenamedAndDeleted() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.session.draft = "one"
        app.session.send()
        let id = app.session.conversation.id
        #expect(await app.parts.conversations.delete(id) == false)
        #expect(await app.answered())
        await app.parts.conversations.rename(id, to: " A name ")
        #expect(app.session.conversation.title == "A name")
        await app.parts.conversations.rename(id, to: " ")
        #expect(app.session.conversation.title == "A name")
        app.session.begin()
        #expect(await app.session.open(id))
        #expect(app.session.conversation.title == "A name")
        #expect(await app.parts.conversations.delete(id))
        #expect(app.parts.conversations.entries?.isEmpty == true)
        #expect(app.session.conversation.turns.isEmpty)
    }

    @Test func sentencesAreSpokenAndNotTokens() {
        var cutter = SentenceCutter()
        #expect(cutter.update("Yes") == nil)
        #expect(cutter.update("Yes. It") == "Yes.")
        #expect(cutter.update("Yes. It is 3.5 m. And 是。") == "It is 3.5 m. And 是。")
        #expect(cutter.end("Yes. It is 3.5 m. And 是。 The rest") == "The rest")
        #expect(cutter.end("") == nil)
    }
}
