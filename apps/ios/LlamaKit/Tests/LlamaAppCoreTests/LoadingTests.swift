import Foundation
import LlamaKit
import Testing

@testable import LlamaAppCore

@MainActor
struct LoadingTests {
    @Test func theFirstRunNeedsNoNetwork() async throws {
        let app = try FakeApp(demo: true)
        await app.parts.begin()
        #expect(app.host.state.loaded?.name == "demo")
        #expect(app.parts.settings.model == "demo")
        #expect(app.session.problem == nil)
    }

    @Test func whatAKilledImportLeftIsGone() async throws {
        let app = try FakeApp()
        let left = app.folder.appendingPathComponent("own/Models/one.import")
        try FileManager.default.createDirectory(at: left, withIntermediateDirectories: true)
        await app.parts.begin()
        #expect(!FileManager.default.fileExists(atPath: left.path))
        #expect(app.host.state.loaded == nil)
        #expect(app.parts.hasBegun)
    }

    @Test func aModelThatEndedTheAppIsNotLoadedAgainByItself() async throws {
        let app = try FakeApp()
        try await app.loaded()
        app.parts.settings.loading = "one"
        await app.restart()
        #expect(app.parts.endedLoading == "one")
        #expect(app.host.state.loaded == nil)
        await app.parts.loadLast()
        #expect(app.host.state.loaded?.name == "one")
        #expect(app.parts.endedLoading == nil)
    }

    @Test func whereMemoryIsShortTheUserIsAskedWithNumbers() async throws {
        let app = try FakeApp()
        let bundle = try app.push("large")
        app.device.setAvailable(1 << 20)
        await app.parts.askToLoad(bundle)
        #expect(app.host.state.loaded == nil)
        let asked = try #require(app.parts.question)
        #expect(asked.memory.contextTokens == 512)
        #expect(asked.memory.needBytes == 512_001_000)
        #expect(asked.memory.smaller == nil)
        await app.parts.answer(contextTokens: nil).value
        #expect(app.host.state.loaded == nil)
        await app.parts.askToLoad(bundle)
        let load = app.parts.answer(contextTokens: 512)
        #expect(app.parts.question == nil)
        await load.value
        #expect(app.host.state.loaded?.name == "large")
    }

    @Test func aSmallerContextIsOffered() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: folder) }
        try writeBundle(folder, maxContext: 2048)
        let manifest = try ModelBundle.open(folder).manifest
        let question = try #require(
            MemoryQuestion(manifest, contextTokens: 4096, availableBytes: 1_500_000_000))
        #expect(question.contextTokens == 2048)
        #expect(question.smaller?.tokens == 1280)
        #expect(MemoryQuestion(manifest, contextTokens: 4096, availableBytes: 1 << 40) == nil)
    }

    @Test func damagedModelsAndOthersTargetsAreRefusedInWords() async throws {
        let app = try FakeApp()
        await app.parts.askToLoad(try app.push("phone", target: "onnx"))
        guard case .failed(let name, let error) = app.host.state else {
            Issue.record("it was loaded")
            return
        }
        #expect(name == "phone")
        #expect(error.hint == "Export the model with --target coreml.")
        // To load it again would help nobody.
        #expect(error.kind == .other)
        await app.host.unload()
        let bundle = try app.push("broken")
        try Data("artifact of BROKEN".utf8).write(to: bundle.artifact)
        await app.parts.askToLoad(bundle)
        #expect(app.host.state.loaded == nil)
        #expect(app.parts.report().contains("load broken"))
        try Data("short".utf8).write(to: bundle.artifact)
        await app.parts.models.read()
        let kinds = app.parts.models.entries?.map { entry in
            if case .damaged = entry { "\(entry.name) damaged" } else { entry.name }
        }
        #expect(kinds == ["broken damaged", "phone"])
    }

    @Test func anEngineThatFailsIsSaidAndAnotherModelCanBeLoaded() async throws {
        let app = try FakeApp()
        app.engines.change { $0.fault = EngineError("no room", hint: "Free some.") }
        await app.parts.askToLoad(try app.push("one"))
        guard case .failed(_, let error) = app.host.state else {
            Issue.record("it was loaded")
            return
        }
        #expect(error.message == "no room")
        app.engines.change { $0.fault = nil }
        try await app.loaded()
    }

    @Test func aModelMakesRoomForTheNextOne() async throws {
        let app = try FakeApp()
        try await app.loaded()
        await app.parts.askToLoad(try app.push("two"))
        #expect(app.host.state.loaded?.name == "two")
        #expect(app.engines.now.opened == 2)
        #expect(app.engines.now.living == 1)
        await app.host.unload()
        #expect(app.engines.now.living == 0)
    }

    @Test func aModelThatIsUsedIsNotDeletedAndOneThatRestsIs() async throws {
        let app = try FakeApp()
        try await app.loaded()
        await app.parts.models.read()
        let entry = try #require(app.parts.models.entries?.first)
        app.parts.foreground.gate.pause()
        app.session.draft = "x"
        app.session.send()
        #expect(try await app.parts.models.delete(entry) == false)
        app.parts.foreground.gate.resume()
        #expect(await app.answered())
        #expect(try await app.parts.models.delete(entry))
        #expect(app.engines.now.forgotten == ["one"])
        #expect(app.host.state.loaded == nil)
        #expect(app.parts.models.entries?.isEmpty == true)
    }

    @Test func settingsAreCheckedAndSurvive() async throws {
        let app = try FakeApp()
        var form = SettingsForm(system: "Be short.", sampling: .defaults, maxTokens: 100, contextTokens: 512)
        form.typed[.temperature] = "0,25"
        form.typed[.seed] = " 7 "
        try form.save(app.parts.settings, app.session, model: nil)
        await app.restart()
        #expect(app.session.conversation.system == "Be short.")
        let chosen = try Sampling(temperature: 0.25, seed: 7)
        #expect(app.session.conversation.sampling == chosen)
        #expect(app.parts.settings.contextTokens == 512)
        form.typed[.topK] = "many"
        #expect(throws: SettingsFault(field: .topK, found: "many")) { try form.sampling() }
        form.typed[.topK] = "-1"
        #expect(throws: BadInput.self) { try form.sampling() }
        form.typed[.topK] = "0"
        form.typed[.contextTokens] = "5"
        #expect {
            try form.save(app.parts.settings, app.session, model: nil)
        } throws: {
            ($0 as? BadInput)?.kind == .setting
        }
        #expect(app.parts.settings.contextTokens == 512)
    }
}
