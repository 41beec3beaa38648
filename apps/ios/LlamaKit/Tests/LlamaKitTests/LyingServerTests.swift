import Foundation
import Testing

@testable import LlamaKit

/// What a server does instead of giving the artifact, and the words for it.
struct Lie: Sendable, CustomTestStringConvertible {
    let name: String
    let words: String
    let answer: TestServer.Answer

    var testDescription: String { name }

    init(_ name: String, _ words: String, _ answer: @escaping TestServer.Answer) {
        self.name = name
        self.words = words
        self.answer = answer
    }
}

private let whole = testFiles()[1].content
private let other = whole.prefix(9) + [whole[9] &+ 1] + whole.dropFirst(10)
private let brokenOff = "model.onnx broke off after "

private let lies = [
    Lie("other bytes", "model.onnx has other bytes than the manifest says; it was deleted") {
        try $1.answer(200, Array(other))
    },
    Lie("one byte more", "model.onnx has 60001 bytes, and the manifest says 60000") {
        try $1.answer(200, whole + [1])
    },
    Lie("one byte less", "model.onnx has 59999 bytes, and the manifest says 60000") {
        try $1.answer(200, whole.dropLast())
    },
    Lie("more than it said", "model.onnx is longer than the manifest's 60000 bytes") {
        try $1.answer(200, whole + [UInt8](repeating: 0, count: 99), ["Content-Length": ""])
    },
    Lie("an early end", "model.onnx ended after 40000 of 60000 bytes") {
        try $1.answer(200, Array(whole.prefix(40_000)), ["Content-Length": ""])
    },
    Lie("a lost connection", brokenOff) {
        try $1.answer(200, Array(whole.prefix(40_000)), ["Content-Length": "60000"])
    },
    Lie("half a chunk", brokenOff) {
        let chunked = ["Content-Length": "", "Transfer-Encoding": "chunked"]
        try $1.answer(200, Array("ea60\r\n".utf8) + whole.prefix(40_000), chunked)
    },
    Lie("packed", "model.onnx comes packed as gzip, which was not asked for") {
        try $1.answer(200, whole, ["Content-Encoding": "gzip"])
    },
    Lie("who asks", "model.onnx: the server wants to know who asks (401)") { try $1.answer(401) },
    Lie("a password", "model.onnx: the server wants to know who asks (401)") {
        try $1.answer(401, [], ["WWW-Authenticate": "Basic realm=\"x\""])
    },
    Lie("gone", "model.onnx is not on the server") { try $1.answer(404) },
    Lie("busy", "model.onnx: the server answered 503") { try $1.answer(503) },
    Lie("in circles", "leads from one address to the next without end") {
        try $1.answer(302, [], ["Location": $0.path])
    },
    Lie("a file of the phone", "expected http or https, found file") {
        try $1.answer(302, [], ["Location": "file:///etc/passwd"])
    },
    Lie("nowhere", "names no host") { try $1.answer(302, [], ["Location": "http:///model.onnx"]) },
    Lie("no HTTP", "what answers is no web server") { try $1.write(Array("nonsense".utf8)) },
]

@Suite("Servers that lie")
struct LyingServerTests {
    @Test(arguments: lies)
    func eachLieIsNamedAndTheNextHonestAnswerIsTaken(lie: Lie) throws {
        let test = try DownloadCase()
        let server = try test.server(lie.answer)
        defer { server.stop() }
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error.message.contains(lie.words), "\(error.message)")
        #expect(!error.hint.isEmpty)
        #expect(!isTaken(test.target))
        let honest = try test.server()
        defer { honest.stop() }
        _ = try test.fetch(honest)
        try test.requireWhole()
    }

    @Test func whatCameBeforeALostConnectionIsKept() throws {
        let test = try DownloadCase()
        let server = try test.server {
            try $1.answer(200, Array(whole.prefix(40_000)), ["Content-Length": "60000"])
        }
        defer { server.stop() }
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error is NetworkError)
        #expect(lengthOfFile(test.part) == 40_000)
        let honest = try test.server()
        defer { honest.stop() }
        _ = try test.fetch(honest)
        #expect(honest.asked.last { $0.path == "/b/model.onnx" }?.from == 40_000)
        try test.requireWhole()
    }

    @Test(
        arguments: [
            ("a manifest that is not there", 404, "manifest.json: the server answered 404"),
            ("a page in its place", 200, "manifest.json is not valid JSON"),
        ])
    func aManifestThatIsNone(name: String, status: Int, words: String) throws {
        let test = try DownloadCase()
        let server = try TestServer { try $1.answer(status, Array("<html>".utf8)) }
        defer { server.stop() }
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error.message.contains(words))
        #expect(!isTaken(test.target))
    }

    @Test func anEndlessManifestIsNotRead() throws {
        let test = try DownloadCase()
        let server = try TestServer { _, client in
            try client.write(Array("HTTP/1.1 200 -\r\n\r\n".utf8))
            let blanks = [UInt8](repeating: 0x20, count: 1 << 20)
            while true {
                try client.write(blanks)
                // Linux's client hears no cancel while bytes come without a pause.
                Thread.sleep(forTimeInterval: 0.005)
            }
        }
        defer { server.stop() }
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error.message == "manifest.json is larger than 16777216 bytes")
    }

    @Test func aServerThatFallsSilentIsGivenUp() throws {
        let test = try DownloadCase()
        let server = try test.server { _, client in
            try client.answer(200, Array(whole.prefix(10_000)), ["Content-Length": "60000"])
            Thread.sleep(forTimeInterval: 60)
        }
        defer { server.stop() }
        let http = UrlHttp(transport: SessionTransport(silenceSeconds: 1))
        let error = try refusal { _ = try test.fetch(server, http: http) }
        #expect(error.message == "model.onnx broke off after 10000 bytes: nothing came for 1 seconds")
        #expect(lengthOfFile(test.part) == 10_000)
        let mute = try TestServer { _, _ in Thread.sleep(forTimeInterval: 60) }
        defer { mute.stop() }
        let nothing = try refusal { _ = try test.fetch(mute, http: http) }
        #expect(nothing.message == "127.0.0.1 does not answer: nothing came for 1 seconds")
    }

    @Test func nobodyAnswers() throws {
        let test = try DownloadCase()
        let server = try test.server()
        server.stop()
        let error = try refusal { _ = try test.fetch(server) }
        #expect(error is NetworkError)
        #expect(error.message.hasPrefix("127.0.0.1 does not answer: "))
    }
}
