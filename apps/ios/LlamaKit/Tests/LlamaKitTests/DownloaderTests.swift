import Foundation
import Testing

@testable import LlamaKit

private let kills = 200
private let name = downloadName

@Suite("Downloads of bundles")
struct DownloaderTests {
    @Test func aBundleIsFetchedTheManifestFirst() throws {
        let test = try DownloadCase()
        let server = try test.server()
        defer { server.stop() }
        var seen = [DownloadProgress]()
        let address = BundleAddress(base: server.base + "/b/")
        let bundle = try Downloader(models: test.models).fetch(
            address, name: name, isStopped: { false }, onProgress: { seen.append($0) })
        #expect(bundle.folder.path == test.target.path)
        try test.requireWhole()
        #expect(server.asked.first?.path == "/b/manifest.json")
        #expect(seen.last == DownloadProgress(doneBytes: 65_002, sizeBytes: 65_002))
        #expect(seen.map(\.doneBytes) == seen.map(\.doneBytes).sorted())
    }

    @Test func after200KillsAtRandomBytesNoFileIsCorrupt() throws {
        let test = try DownloadCase()
        let server = try test.server()
        defer { server.stop() }
        var random = TestRandom(7)
        var killed = 0
        var finished = 0
        while killed < kills {
            do {
                _ = try test.fetch(server, http: Killer(after: 1 + random.below(40_000)))
                try test.requireWhole()
                deleteTree(test.target)
                finished += 1
            } catch is Killed {
                killed += 1
                #expect(!isTaken(test.target))
                try garble(test.part, &random)
            } catch let error as BundleError {
                // A garbled part is found, said and deleted; the next run begins anew.
                #expect(error.message.contains("model.onnx has other bytes"))
                #expect(!isTaken(test.part))
            }
        }
        #expect(finished > 10, "\(finished) runs came to their end")
        if (try? test.fetch(server)) == nil { _ = try test.fetch(server) }
        try test.requireWhole()
    }

    /// A machine that loses power may lose or garble what it had not yet stored.
    private func garble(_ part: URL, _ random: inout TestRandom) throws {
        guard lengthOfFile(part) ?? 0 > 0 else { return }
        var kept = try stored(part)
        switch random.below(4) {
        case 0: try store(Array(kept.prefix(random.below(kept.count))), at: part)
        case 1:
            kept[random.below(kept.count)] = 0
            try store(kept, at: part)
        default: break
        }
    }

    @Test func aPartIsContinuedWhereItEndsByARightAnswerOnly() throws {
        let whole = testFiles()[1].content
        @Sendable func wrong(_ asked: Asked, _ client: Client, _ range: String) throws {
            if asked.from == 0 { return try client.serve(whole, asked) }
            try client.answer(206, Array(whole[asked.from...]), ["Content-Range": range])
        }
        // The answer to the range, and the requests for the artifact that it takes.
        let cases: [(TestServer.Answer, Int)] = [
            ({ try $1.serve(whole, $0) }, 1),
            ({ try $1.answer(200, whole) }, 1),
            ({ try $0.from > 0 ? $1.answer(416) : $1.serve(whole, $0) }, 2),
            ({ try wrong($0, $1, "bytes 0-59999/60000") }, 2),
            ({ try wrong($0, $1, "bytes 1000-59999/70000") }, 2),
            ({ try wrong($0, $1, "nonsense") }, 2),
        ]
        for (answer, requests) in cases {
            let test = try DownloadCase()
            try test.leave(1000)
            let server = try test.server(answer)
            defer { server.stop() }
            _ = try test.fetch(server)
            let artifact = server.asked.filter { $0.path == "/b/model.onnx" }
            #expect(artifact.first?.headers["range"] == "bytes=1000-")
            #expect(artifact.count == requests)
            try test.requireWhole()
        }
    }

    @Test func aGarbledPartIsDeletedAndOneThatIsTooLongBeginsAnew() throws {
        let test = try DownloadCase()
        let server = try test.server()
        defer { server.stop() }
        try test.leave(1000) { $0[500] &+= 1 }
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error is BundleError)
        #expect(error.message.contains("it was deleted"))
        #expect(!isTaken(test.part))
        try test.leave(artifactBytes) { $0 += [0, 0, 0, 0, 0] }
        _ = try test.fetch(server)
        try test.requireWhole()
    }

    @Test func aServerThatHasANewerBundleByNowBeginsItAnew() throws {
        let test = try DownloadCase()
        try test.leave(1000)
        let newer = testFiles(seed: 5)
        let known = withManifest(newer)
        let server = try TestServer { asked, client in
            let content = known.first { "/b/" + $0.path == asked.path }?.content ?? []
            try client.serve(content, asked)
        }
        defer { server.stop() }
        _ = try test.fetch(server)
        let artifact = server.asked.filter { $0.path == "/b/model.onnx" }
        #expect(artifact.map { $0.headers["range"] } == [nil])
        #expect(try stored(test.target.at("model.onnx")) == newer[1].content)
    }

    @Test func aStopKeepsWhatCameAndTheNextRunGoesOn() throws {
        let test = try DownloadCase()
        // The first answer never comes to its end, so that the stop finds it under way.
        let whole = test.artifact
        let server = try test.server { asked, client in
            if asked.from > 0 { return try client.serve(whole, asked) }
            try client.answer(200, Array(whole.prefix(30_000)), ["Content-Length": "60000"])
            Thread.sleep(forTimeInterval: 30)
        }
        defer { server.stop() }
        let begun = Date()
        let error = try refusal {
            _ = try test.fetch(server, isStopped: { (lengthOfFile(test.part) ?? 0) >= 30_000 })
        }
        #expect(error is Stopped)
        #expect(Date().timeIntervalSince(begun) < 15, "a silent server held the stop up")
        #expect(lengthOfFile(test.part) == 30_000)
        #expect(Downloader(models: test.models).unfinished() == [name])
        _ = try test.fetch(server)
        try test.requireWhole()
        #expect(server.asked.last { $0.path == "/b/model.onnx" }?.from == 30_000)
    }

    @Test func aStopIsHeardBeforeAServerAnswers() throws {
        let test = try DownloadCase()
        let server = try TestServer { _, _ in Thread.sleep(forTimeInterval: 30) }
        defer { server.stop() }
        let begun = Date()
        let error = try refusal {
            _ = try test.fetch(server, isStopped: { Date().timeIntervalSince(begun) > 0.3 })
        }
        #expect(error is Stopped)
        #expect(Date().timeIntervalSince(begun) < 15)
    }

    @Test func twoTapsFetchOnce() throws {
        let test = try DownloadCase()
        let models = test.models
        let second = Kept<any AppError>()
        let whole = test.artifact
        let server = try test.server { asked, client in
            second.value = try refusal {
                _ = try Downloader(models: models).fetch(
                    BundleAddress(base: "http://127.0.0.1/b"), name: name, isStopped: { false },
                    onProgress: { _ in })
            }
            try client.serve(whole, asked)
        }
        defer { server.stop() }
        _ = try test.fetch(server)
        #expect(second.value?.message == "model is just being fetched or copied")
        try test.requireWhole()
    }

    @Test func tooLittleStorageIsSaidBeforeTheFirstByteOfAFile() throws {
        let test = try DownloadCase()
        let server = try test.server()
        defer { server.stop() }
        let full = Downloader(models: test.models, freeBytes: { _ in 1_000_000 })
        let error = try refusal {
            _ = try full.fetch(
                BundleAddress(base: server.base + "/b"), name: name, isStopped: { false },
                onProgress: { _ in })
        }
        #expect(error.message.contains("and 1000000 are free"))
        #expect(server.asked.map(\.path) == ["/b/manifest.json"])
    }

    #if os(Linux)
        @Test func aStorageThatFillsUpIsSaidAndTheNextRunGoesOn() throws {
            let test = try DownloadCase()
            let server = try test.server()
            defer { server.stop() }
            try test.leave(0)
            deleteTree(test.part)
            // What is written there finds no room.
            symlink("/dev/full", test.part.path)
            let error = try refusal { _ = try test.fetch(server) }
            #expect(error is BundleError)
            #expect(error.message == "model.onnx.part cannot be written: No space left on device")
            #expect(error.hint.contains("goes on from where it ended"))
            #expect(!isTaken(test.target))
            deleteTree(test.part)
            _ = try test.fetch(server)
            try test.requireWhole()
        }
    #endif

    @Test func aModelThatIsThereIsNotOverwritten() throws {
        let test = try DownloadCase()
        let server = try test.server()
        defer { server.stop() }
        _ = try test.fetch(server)
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error.message == "a model named model is there already")
        try test.requireWhole()
        let bad = ["../x", "a/b", "", ".", "a:b", "e\u{301}/b", "a\u{0}b"]
        // The last ones would be deleted as what an import, a download or a lock left.
        for bad in bad + ["a.import", "a.download", "a.lock", "a.IMPORT"] {
            let error = try refusal {
                _ = try Downloader(models: test.models).fetch(
                    BundleAddress(base: server.base + "/b"), name: bad, isStopped: { false },
                    onProgress: { _ in })
            }
            #expect(error is BadInput, "\(bad)")
        }
        for bad in bad {
            #expect(throws: BadInput.self) { try Downloader(models: test.models).discard(bad) }
        }
    }

    @Test func whatWasFetchedBeforeIsLookedAtNoLongerThanTheUserWants() throws {
        let test = try DownloadCase()
        let server = try test.server()
        defer { server.stop() }
        try writeFiles(withManifest(test.files), to: test.models.at("model.download"))
        var asks = 0
        let error = try refusal {
            _ = try test.fetch(
                server,
                isStopped: {
                    asks += 1
                    return asks > 4
                })
        }
        #expect(error is Stopped)
        #expect(!isTaken(test.target))
        _ = try test.fetch(server)
        try test.requireWhole()
        #expect(Set(server.asked.map(\.path)) == ["/b/manifest.json"])
    }

    @Test func aBundleMayHoldAnyNameAndAStorageThatTakesNothingIsSaid() throws {
        let test = try DownloadCase()
        let odd: TestFiles =
            test.files + [(".lock", [1]), ("manifest.json.part", [2]), ("model.onnx.part", [3])]
        let known = withManifest(odd)
        let server = try TestServer { asked, client in
            let content = known.first { "/b/" + $0.path == asked.path }?.content ?? []
            try client.serve(content, asked)
        }
        defer { server.stop() }
        _ = try test.fetch(server)
        #expect(try ModelBundle.open(test.target).checkHashes { _ in true })
        #expect(namesIn(test.models) == [name])
        deleteTree(test.target)
        try makeFolder(test.models.at("model.lock"))
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error.message == "model cannot be written: Is a directory")
    }

    @Test func whatADownloadLeftIsDeleted() throws {
        let test = try DownloadCase()
        try test.leave(1000)
        try store([], at: test.models.at("model.lock"))
        try Downloader(models: test.models).discard(name)
        #expect(Downloader(models: test.models).unfinished() == [])
        #expect(namesIn(test.models) == [])
    }
}

/// A value that a server's thread leaves for the test. Unchecked, because the server is done by then.
final class Kept<T>: @unchecked Sendable {
    var value: T?
}

/// The process dies: nothing that follows is done.
private struct Killed: Error {}

/// A client that dies after a number of bytes. Unchecked, because one thread uses it.
private final class Killer: Http, @unchecked Sendable {
    private var bytesLeft: Int

    init(after bytes: Int) { bytesLeft = bytes }

    func get(_ url: String, token: String?, from: Int64, isStopped: () -> Bool) throws -> any HttpAnswer {
        let answer = try UrlHttp().get(url, token: token, from: from, isStopped: isStopped)
        return MortalAnswer(answer) { wanted in
            let count = min(wanted, self.bytesLeft)
            self.bytesLeft -= count
            if count < wanted { throw Killed() }
        }
    }
}

private final class MortalAnswer: HttpAnswer {
    private let answer: any HttpAnswer
    private let spend: (Int) throws -> Void
    private var rest = Data()

    init(_ answer: any HttpAnswer, _ spend: @escaping (Int) throws -> Void) {
        self.answer = answer
        self.spend = spend
    }

    var status: Int { answer.status }

    func header(_ name: String) -> String? { answer.header(name) }

    func close() { answer.close() }

    func read() throws -> Data? {
        if rest.isEmpty {
            guard let piece = try answer.read() else { return nil }
            rest = piece
        }
        let piece = rest.prefix(1000)
        rest = rest.dropFirst(piece.count)
        try spend(piece.count)
        return Data(piece)
    }
}
