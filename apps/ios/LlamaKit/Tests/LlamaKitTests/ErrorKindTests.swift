import Foundation
import Testing

@testable import LlamaKit

/// Something that goes wrong, and the kind that it is said to be.
private struct Failure: Sendable, CustomTestStringConvertible {
    let kind: ErrorKind
    let testDescription: String
    let fail: @Sendable () throws -> Void

    init(_ kind: ErrorKind, _ name: String, _ fail: @escaping @Sendable () throws -> Void) {
        self.kind = kind
        self.testDescription = "\(kind): \(name)"
        self.fail = fail
    }
}

/// A network on which every server gives one answer, or none does.
private struct OneAnswer: HttpTransport {
    var status: Int?
    var headers: [String: String] = [:]
    var body: [UInt8] = []

    func send(_ request: HttpRequest, isStopped: () -> Bool) throws -> any HttpAnswer {
        guard let status else { throw BodyFault("no such host") }
        return Answer(status, headers, Data(body))
    }

    private final class Answer: HttpAnswer {
        let status: Int
        private let headers: [String: String]
        private var body: Data?

        init(_ status: Int, _ headers: [String: String], _ body: Data) {
            self.status = status
            self.headers = headers
            self.body = body
        }

        func header(_ name: String) -> String? { headers[name] }

        func read() -> Data? {
            defer { body = nil }
            return body
        }

        func close() {}
    }
}

private let files = testFiles()
private let whole = withManifest(files)

private func ask(_ answer: OneAnswer, _ url: String = "https://hub.test/b", token: String? = nil) throws {
    _ = try UrlHttp(transport: answer).get(url, token: token, from: 0) { false }
}

private func fetch(_ answer: OneAnswer, freeBytes: Int64 = .max) throws {
    let folder = try TestFolder()
    _ = try Downloader(
        models: folder.url, http: UrlHttp(transport: answer), freeBytes: { _ in freeBytes }
    ).fetch(
        BundleAddress(base: "https://hub.test/b"), name: "m", isStopped: { false }, onProgress: { _ in })
}

/// Fetch one file of 60 000 bytes.
private func fetchFile(_ answer: OneAnswer, into folder: TestFolder) throws {
    let content = files[1].content
    let entry = FileEntry(
        path: "model.onnx", sha256: Sha256.hex(of: content), sizeBytes: Int64(content.count))
    try FileDownload(
        http: UrlHttp(transport: answer), url: "https://hub.test/b/model.onnx", token: nil,
        target: folder.url.at("model.onnx"), entry: entry, isStopped: { false }, onBytes: { _ in }
    ).run()
}

private func fetchFile(_ answer: OneAnswer) throws { try fetchFile(answer, into: TestFolder()) }

private func without(_ path: String) -> TestFiles { whole.filter { $0.path != path } }

private func with(_ path: String, _ content: [UInt8]) -> TestFiles {
    whole.map { $0.path == path ? (path, content) : $0 }
}

private func importFolder(_ files: TestFiles, named name: String = "m", freeBytes: Int64 = .max) throws {
    let folder = try TestFolder()
    let models = folder.url.at("models")
    try writeFiles(whole, to: models.at("taken"))
    _ = try BundleImport(models: models, freeBytes: { _ in freeBytes })
        .fromFolder(writeFiles(files, to: folder.url.at("source")), name: name) { _ in true }
}

private func importZip(_ content: [UInt8]) throws {
    let folder = try TestFolder()
    let zip = folder.url.at("m.zip")
    try store(content, at: zip)
    _ = try BundleImport(models: folder.url.at("models")).fromZip(zip, name: "m") { _ in true }
}

private func open(_ files: TestFiles, check: Bool = false) throws {
    let folder = try TestFolder()
    let bundle = try ModelBundle.open(writeFiles(files, to: folder.url.at("m")))
    if check { _ = try bundle.checkHashes { _ in true } }
}

/// Do something in a folder's place where a file lies.
private func inAFile(_ work: (URL) throws -> Void) throws {
    let folder = try TestFolder()
    let file = folder.url.at("file")
    try store([1], at: file)
    try work(file)
}

private func executorch(_ code: Int) throws { throw executorchError("load", code: code, message: "") }

private let longText = String(repeating: "x", count: 1000)
private let newer = testManifest(files, [("format_version", number(99))]).writeBytes()
private let other = noise(artifactBytes, seed: 9)

private let downloads: [Failure] = [
    Failure(.network, "no host") { try ask(OneAnswer()) },
    Failure(.network, "a file ends early") { try fetchFile(OneAnswer(status: 200, body: [1, 2])) },
    Failure(.server, "no such manifest") { try fetch(OneAnswer(status: 404)) },
    Failure(.server, "no such file") { try fetchFile(OneAnswer(status: 404)) },
    Failure(.server, "a broken server") { try fetchFile(OneAnswer(status: 500)) },
    Failure(.server, "a loop") { try ask(OneAnswer(status: 302, headers: ["Location": "/b"])) },
    Failure(.server, "it leads elsewhere") {
        try ask(OneAnswer(status: 302, headers: ["Location": "mailto:a@b"]))
    },
    Failure(.tokenWanted, "a manifest, 401") { try fetch(OneAnswer(status: 401)) },
    Failure(.tokenWanted, "a manifest, 403") { try fetch(OneAnswer(status: 403)) },
    Failure(.tokenWanted, "a file, 403") { try fetchFile(OneAnswer(status: 403)) },
    Failure(.tokenWanted, "a token with a blank") { try ask(OneAnswer(status: 200), token: "a b") },
    Failure(.address, "no scheme") { try ask(OneAnswer(status: 200), "hub.test/b") },
    Failure(.address, "no host") { try ask(OneAnswer(status: 200), "https://") },
    Failure(.address, "nothing") { try ask(OneAnswer(status: 200), "") },
    Failure(.address, "no repository") {
        _ = try BundleAddress.onHub(host: "https://hub.test", repository: "me", folder: "")
    },
    Failure(.address, "no folder") {
        _ = try BundleAddress.onHub(host: "https://hub.test", repository: "me/m", folder: "../b")
    },
    Failure(.wrongBytes, "another length") {
        try fetchFile(OneAnswer(status: 200, headers: ["Content-Length": "7"]))
    },
    Failure(.wrongBytes, "another file") { try fetchFile(OneAnswer(status: 200, body: other)) },
    Failure(.damaged, "what is no manifest") { try fetch(OneAnswer(status: 200, body: Array("<p>".utf8))) },
    Failure(.newerFormat, "a manifest of a newer format") { try fetch(OneAnswer(status: 200, body: newer)) },
    Failure(.storage, "no room") {
        try fetch(OneAnswer(status: 200, body: testManifest(files).writeBytes()), freeBytes: 7)
    },
    Failure(.storage, "a part that cannot be written") {
        let folder = try TestFolder()
        try makeFolder(folder.url.at("model.onnx.part"))
        try fetchFile(OneAnswer(status: 200, body: files[1].content), into: folder)
    },
]

private let imports: [Failure] = [
    Failure(.noBundle, "a folder of others") { try importFolder(without(manifestName)) },
    Failure(.noBundle, "a zip of others") { try importZip(TestZip(files).bytes) },
    Failure(.noBundle, "no zip") { try importZip([1, 2, 3]) },
    Failure(.noBundle, "a folder that is opened") { try open(without(manifestName)) },
    Failure(.incomplete, "a file is missing") { try importFolder(without("model.onnx")) },
    Failure(.incomplete, "a file is cut off") { try importFolder(with("model.onnx", [1])) },
    Failure(.incomplete, "a zip lacks a file") { try importZip(TestZip(without("model.onnx")).bytes) },
    Failure(.incomplete, "a file is missing where it is opened") { try open(without("model.onnx")) },
    Failure(.wrongBytes, "a copy") { try importFolder(with("model.onnx", other)) },
    Failure(.wrongBytes, "a check") { try open(with("model.onnx", other), check: true) },
    Failure(.nameTaken, "a copy") { try importFolder(whole, named: "taken") },
    Failure(.storage, "no room for a copy") { try importFolder(whole, freeBytes: 7) },
    Failure(.storage, "no folder of models") {
        try inAFile { file in
            let source = try TestFolder()
            try writeFiles(whole, to: source.url)
            _ = try BundleImport(models: file).fromFolder(source.url, name: "m") { _ in true }
        }
    },
    Failure(.other, "a compressed zip, which Files unpacks") {
        var made = TestZip(whole)
        for index in made.entries.indices { made.entries[index].method = 8 }
        try importZip(made.bytes)
    },
    Failure(.other, "no name") { try requireFolderName("a/b") },
    Failure(.damaged, "no tokenizer") { _ = try loadTokenizer(TestFolder().url) },
]

private let models: [Failure] = [
    Failure(.noMemory, "ExecuTorch, 0x21") { try executorch(0x21) },
    Failure(.noMemory, "ExecuTorch, 0x31") { try executorch(0x31) },
    Failure(.runtimeVersion, "ExecuTorch, 0x14") { try executorch(0x14) },
    Failure(.runtimeVersion, "ExecuTorch, 0x23") { try executorch(0x23) },
    Failure(.runtimeVersion, "ExecuTorch, 0x30") { try executorch(0x30) },
    Failure(.incomplete, "ExecuTorch, 0x20") { try executorch(0x20) },
    Failure(.engine, "ExecuTorch, 0x12") { try executorch(0x12) },
    Failure(.engine, "ExecuTorch, 0x77") { try executorch(0x77) },
    Failure(.contextFull, "a prompt") { _ = try Generator(RowModel(vocabSize: 258)).begin(longText) },
    Failure(.contextFull, "more tokens") {
        _ = try KeptCache(RowModel()).read(Array(repeating: 1, count: 65))
    },
    Failure(.contextFull, "a message") {
        let generator = try Generator(RowModel(vocabSize: 258))
        _ = try Chat(generator, shortForm).send(longText, .defaults)
    },
    Failure(.other, "an empty prompt") { _ = try Generator(RowModel(vocabSize: 258)).begin("") },
    Failure(.setting, "a temperature") { _ = try Sampling(temperature: -1) },
    Failure(.setting, "no tokens") { _ = try WriteSettings(maxTokens: 0) },
    Failure(.storage, "a conversation") {
        let made = Conversation(id: "a", title: "", model: "", changedMs: 0, system: "", turns: [])
        try inAFile { try ConversationStore(folder: $0).save(made) }
    },
]

private let all = downloads + imports + models

@Suite("Kinds of errors")
struct ErrorKindTests {
    @Test(arguments: all)
    private func areSetWhereSomethingFails(failure: Failure) throws {
        #expect(try refusal(failure.fail).kind == failure.kind)
    }

    @Test func eachHappens() {
        #expect(Set(all.map(\.kind)) == Set(ErrorKind.allCases))
    }

    @Test func whatTheUserEndedHasNone() {
        #expect(Stopped().kind == .other)
        #expect(StepStopped().kind == .other)
    }

    @Test func aCompiledModelThatCannotBeKeptIsTheStorages() async throws {
        let folder = try TestFolder()
        let file = folder.url.at("file")
        try store([1], at: file)
        let made = folder.url.at("made")
        await #expect {
            try await CompiledModels(folder: file)
                .model(of: folder.url.at("m.mlpackage"), manifestSha256: "ab", system: "18") { _ in
                    try makeFolder(made)
                    return made
                }
        } throws: {
            ($0 as? EngineError)?.kind == .storage
        }
    }
}
