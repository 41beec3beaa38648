import LlamaKit
import Testing

@testable import LlamaAppCore

@MainActor
struct BackgroundTests {
    private func answering() async throws -> FakeApp {
        let app = try FakeApp()
        app.engines.change {
            $0.answer = String(repeating: "a", count: 300)
            $0.stepSeconds = 0.003
        }
        try await app.loaded()
        app.session.draft = "go"
        app.session.send()
        #expect(await app.until { (app.session.pending?.answer.count ?? 0) > 1 })
        return app
    }

    private func requireStill(_ app: FakeApp) async throws {
        #expect(await app.until { app.parts.foreground.gate.holdsStep })
        let steps = app.engines.now.steps
        try await Task.sleep(for: .milliseconds(50))
        #expect(app.engines.now.steps == steps)
    }

    @Test func theBackgroundHoldsTheNextStepAndTheUserGoesOn() async throws {
        let app = try await answering()
        app.parts.change(to: .inactive)
        app.parts.change(to: .background)
        try await requireStill(app)
        app.parts.change(to: .active)
        #expect(app.parts.foreground.isPaused)
        try await requireStill(app)
        app.parts.foreground.goOn()
        #expect(await app.answered())
        #expect(app.session.conversation.turns.last?.message.text == String(repeating: "a", count: 300))
        #expect(app.session.conversation.turns.last?.isWhole == true)
        #expect(!app.parts.foreground.isPaused)
    }

    @Test func aShortLookAwayGoesOnByItself() async throws {
        let app = try await answering()
        app.parts.change(to: .inactive)
        try await requireStill(app)
        app.parts.change(to: .active)
        #expect(!app.parts.foreground.isPaused)
        #expect(await app.answered())
        #expect(app.session.conversation.turns.last?.isWhole == true)
    }

    @Test func whatIsPausedCanBeStoppedAndTheNextAnswerRuns() async throws {
        let app = try await answering()
        app.parts.change(to: .background)
        try await requireStill(app)
        app.parts.change(to: .active)
        app.session.stop()
        #expect(await app.answered())
        #expect(app.session.conversation.turns.last?.isWhole == false)
        #expect(!app.parts.foreground.isPaused)
        app.engines.change { $0.answer = "Done." }
        app.session.draft = "next"
        app.session.send()
        #expect(await app.answered())
        #expect(app.session.conversation.turns.last?.message.text == "Done.")
    }

    @Test func nothingIsLoadedInTheBackground() async throws {
        let app = try FakeApp()
        let bundle = try app.push("one")
        app.parts.change(to: .background)
        let load = Task { await app.parts.askToLoad(bundle) }
        #expect(
            await app.until {
                if case .loading(_, .waiting) = app.host.state { true } else { false }
            })
        #expect(app.engines.now.opened == 0)
        app.parts.change(to: .active)
        _ = await load.value
        #expect(app.host.state.isReady)
    }

    @Test func aLoadThatWaitsCanBeGivenUp() async throws {
        let app = try FakeApp()
        let bundle = try app.push("one")
        app.parts.change(to: .background)
        let load = Task { await app.parts.askToLoad(bundle) }
        #expect(
            await app.until {
                if case .loading(_, .waiting) = app.host.state { true } else { false }
            })
        app.host.stop()
        _ = await load.value
        #expect(app.engines.now.opened == 0)
        #expect(!app.host.state.isWorking)
        app.parts.change(to: .active)
        await app.parts.askToLoad(bundle)
        #expect(app.host.state.isReady)
    }

    @Test func aMemoryWarningFreesAModelThatRests() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.session.draft = "kept"
        await app.parts.memoryWarning()
        guard case .idle(let freed) = app.host.state else {
            Issue.record("it is still there")
            return
        }
        #expect(freed == "one")
        #expect(app.engines.now.living == 0)
        #expect(app.session.draft == "kept")
        #expect(app.parts.lastModel == "one")
    }

    @Test func aMemoryWarningLeavesAModelThatWrites() async throws {
        let app = try await answering()
        app.parts.change(to: .inactive)
        await app.parts.memoryWarning()
        #expect(app.host.state.isBusy)
        app.parts.change(to: .active)
        #expect(await app.answered())
        #expect(app.host.state.isReady)
    }

    @Test func whatIsHalfWrittenIsKeptWhenTheAppLeaves() async throws {
        let app = try await answering()
        app.parts.change(to: .background)
        try await requireStill(app)
        await app.parts.conversations.read()
        let id = app.session.conversation.id
        guard case .sound(let kept) = app.parts.conversations.entries?.first(where: { $0.id == id }) else {
            Issue.record("nothing is kept")
            return
        }
        #expect(kept.turns.count == 2)
        #expect(kept.turns.last?.isWhole == false)
        app.session.stop()
        #expect(await app.answered())
    }
}
