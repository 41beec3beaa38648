import Foundation
import LlamaKit
import Testing

@testable import LlamaAppCore

@MainActor
struct JobsTests {
    @Test func aFolderIsImportedOnceAtATime() async throws {
        let app = try FakeApp()
        let source = app.folder.appendingPathComponent("Some model!")
        try writeBundle(source)
        #expect(app.parts.jobs.importBundle(source))
        #expect(!app.parts.jobs.importBundle(source))
        #expect(await app.until { app.parts.jobs.job == nil })
        #expect(app.parts.jobs.error == nil)
        await app.parts.models.read()
        #expect(app.parts.models.entries?.map(\.name) == ["Some-model"])
        #expect(app.parts.jobs.importBundle(source))
        #expect(await app.until { app.parts.jobs.job == nil })
        await app.parts.models.read()
        #expect(app.parts.models.entries?.map(\.name) == ["Some-model", "Some-model-2"])
    }

    @Test func whatIsNoBundleIsRefusedInWords() async throws {
        let app = try FakeApp()
        #expect(app.parts.jobs.importBundle(app.folder))
        #expect(await app.until { app.parts.jobs.job == nil })
        #expect(app.parts.jobs.error?.hint == "Choose a zip or a folder that llama-export wrote.")
        app.parts.jobs.dismiss()
        #expect(app.parts.jobs.error == nil)
    }

    @Test func aPlaceIsAnAddressOrARepository() throws {
        let tokens = FakeTokens()
        var place = DownloadPlace()
        place.place = " https://host.example/models/one/manifest.json "
        #expect(try place.address(tokens).base == "https://host.example/models/one")
        place.folder = "/coreml/"
        place.place = "me/model"
        #expect(
            try place.address(tokens).base == "https://huggingface.co/me/model/resolve/main/coreml")
        #expect(try place.address(tokens).token == nil)
        tokens.keep("secret", for: "huggingface.co")
        #expect(try place.address(tokens).token == "secret")
        place.token = "other"
        #expect(try place.address(tokens).token == "other")
        place.place = "no place"
        #expect(throws: BadInput.self) { try place.address(tokens) }
    }

    @Test func aFailedDownloadIsSaidAndItsTokenKeptForItsHost() async throws {
        let app = try FakeApp()
        var place = DownloadPlace()
        place.place = "http://127.0.0.1:9/model"
        place.token = "secret"
        #expect(try app.parts.jobs.download(place))
        #expect(await app.until { app.parts.jobs.job == nil })
        #expect(app.parts.jobs.error is NetworkError)
        #expect(app.tokens.token(for: "127.0.0.1") == "secret")
        #expect(app.parts.settings.downloadAddress("model") == "http://127.0.0.1:9/model")
        #expect(await app.parts.jobs.unfinished() == ["model"])
        #expect(app.parts.jobs.goOn("model"))
        #expect(await app.until { app.parts.jobs.job == nil })
        await app.parts.models.discard("model")
        #expect(app.parts.models.unfinished.isEmpty)
        #expect(!app.parts.jobs.goOn("model"))
    }
}
