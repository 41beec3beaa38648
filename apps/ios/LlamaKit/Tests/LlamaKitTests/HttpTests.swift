import Foundation
import Testing

@testable import LlamaKit

/// Answers by address, and what was asked. Unchecked, because one thread uses it.
private final class Script: HttpTransport, @unchecked Sendable {
    private let answers: [String: ScriptedAnswer]
    private(set) var asked = [HttpRequest]()

    init(_ answers: [String: ScriptedAnswer]) { self.answers = answers }

    func send(_ request: HttpRequest, isStopped: () -> Bool) throws -> any HttpAnswer {
        asked.append(request)
        guard let answer = answers[request.url.absoluteString] else { throw BodyFault("no such host") }
        return answer
    }
}

private final class ScriptedAnswer: HttpAnswer {
    let status: Int
    private let headers: [String: String]
    private var pieces: [Data]
    private let fault: String?
    private(set) var isClosed = false

    init(_ status: Int, _ headers: [String: String] = [:], body: [[UInt8]] = [], fault: String? = nil) {
        self.status = status
        self.headers = headers
        self.pieces = body.map { Data($0) }
        self.fault = fault
    }

    static func to(_ place: String) -> ScriptedAnswer { ScriptedAnswer(302, ["Location": place]) }

    func header(_ name: String) -> String? { headers[name] }

    func read() throws -> Data? {
        if !pieces.isEmpty { return pieces.removeFirst() }
        if let fault { throw BodyFault(fault) }
        return nil
    }

    func close() { isClosed = true }
}

private let start = "https://hub.test/b/model"

private func follow(_ script: Script, from: Int64 = 0) throws -> any HttpAnswer {
    try UrlHttp(transport: script).get(start, token: "secret", from: from) { false }
}

@Suite("Redirects and tokens")
struct HttpTests {
    @Test(
        arguments: [
            ("https://hub.test/other", true),
            ("/other", true),
            ("other", true),
            ("https://hub.test:443/other", true),
            ("https://HUB.test/other", true),
            ("https://hub.test:444/other", false),
            ("https://cdn.test/other", false),
            ("https://hub.test.evil.test/other", false),
            ("//cdn.test/other", false),
        ])
    func aTokenGoesToItsOwnHostAlone(location: String, isTold: Bool) throws {
        let next = try #require(URL(string: location, relativeTo: URL(string: start))).absoluteString
        let moved = ScriptedAnswer.to(location)
        let script = Script([start: moved, next: ScriptedAnswer(206)])
        #expect(try follow(script, from: 7).status == 206)
        #expect(moved.isClosed)
        #expect(
            script.asked.map { $0.headers["Authorization"] } == [
                "Bearer secret", isTold ? "Bearer secret" : nil,
            ])
        #expect(script.asked.map { $0.headers["Range"] } == ["bytes=7-", "bytes=7-"])
        #expect(script.asked.allSatisfy { $0.headers["Accept-Encoding"] == "identity" })
    }

    @Test func aTokenThatWasHeldBackStaysSo() throws {
        let script = Script([
            start: .to("https://cdn.test/x"), "https://cdn.test/x": .to("https://hub.test/y"),
            "https://hub.test/y": ScriptedAnswer(200),
        ])
        _ = try follow(script)
        #expect(script.asked.map { $0.headers["Authorization"] } == ["Bearer secret", nil, nil])
    }

    @Test(
        arguments: [
            ("http://hub.test/b", "hub.test leads to a place that is not encrypted"),
            ("ftp://hub.test/b", "https://hub.test/b/model: expected http or https, found ftp"),
            ("file:///etc/passwd", "https://hub.test/b/model: expected http or https, found file"),
            ("http:///b", "https://hub.test/b/model names no host"),
            (start, "hub.test leads from one address to the next without end"),
        ])
    func whereNobodyFollows(location: String, words: String) throws {
        let script = Script([start: .to(location)])
        let error = try refusal { _ = try follow(script) }
        #expect(error is NetworkError)
        #expect(error.message == words)
        #expect(script.asked.count == (location == start ? 8 : 1))
    }

    @Test func aSchemeInCapitalsIsNoOther() throws {
        let typed = start.replacingOccurrences(of: "https", with: "HTTPS")
        let plain = Script([typed: .to("http://hub.test/b")])
        let error = try refusal {
            _ = try UrlHttp(transport: plain).get(typed, token: "secret", from: 0) { false }
        }
        #expect(error.message == "hub.test leads to a place that is not encrypted")
        let same = "HTTPS://hub.test/other"
        let script = Script([start: .to(same), same: ScriptedAnswer(200)])
        #expect(try follow(script).status == 200)
        #expect(script.asked.last?.headers["Authorization"] == "Bearer secret")
    }

    @Test func anAnswerThatLeadsNowhereIsTheAnswer() throws {
        #expect(try follow(Script([start: ScriptedAnswer(302)])).status == 302)
        #expect(try follow(Script([start: ScriptedAnswer(304, ["Location": "/x"])])).status == 304)
        let error = try refusal { _ = try follow(Script([:])) }
        #expect(error.message == "hub.test does not answer: no such host")
    }

    @Test(arguments: ["", "hub.test/b", "https://", "mailto:a@b"])
    func whatIsNoAddress(text: String) throws {
        let error = try refusal {
            _ = try UrlHttp(transport: Script([:])).get(text, token: nil, from: 0) { false }
        }
        #expect(error is NetworkError)
    }

    @Test func aTokenIsNotToldToAnotherHostByTheRealClientEither() throws {
        let test = try DownloadCase()
        let whole = test.artifact
        let other = try TestServer { try $1.serve(whole, $0) }
        defer { other.stop() }
        let away = other.base.replacingOccurrences(of: "127.0.0.1", with: "localhost")
        let server = try test.server { try $1.answer(302, [], ["Location": "\(away)/blob"]) }
        defer { server.stop() }
        let address = BundleAddress(base: server.base + "/b", token: "secret")
        _ = try Downloader(models: test.models).fetch(
            address, name: downloadName, isStopped: { false }, onProgress: { _ in })
        #expect(server.asked.allSatisfy { $0.headers["authorization"] == "Bearer secret" })
        #expect(other.asked.map(\.path) == ["/blob"])
        #expect(other.asked.first?.headers["authorization"] == nil)
        try test.requireWhole()
    }

    @Test func noCookieOfOneAnswerIsToldToTheNext() throws {
        let server = try TestServer { try $1.answer(200, [], ["Set-Cookie": "who=me; Path=/"]) }
        defer { server.stop() }
        for _ in 0..<2 {
            _ = try UrlHttp().get(server.base + "/x", token: nil, from: 0) { false }.read()
        }
        #expect(server.asked.map { $0.headers["cookie"] } == [nil, nil])
    }

    @Test(arguments: ["secret\n", "sec ret", "s\u{e9}cret", "secret\r\nHost: evil", "\u{7f}"])
    func aTokenThatNoHeaderTakesIsRefusedInWordsWithoutIt(token: String) throws {
        let script = Script([start: ScriptedAnswer(200)])
        let error = try refusal {
            _ = try UrlHttp(transport: script).get(start, token: token, from: 0) { false }
        }
        #expect(error is BadInput)
        #expect(error.message == "the token holds a blank or another character that no token has")
        #expect(script.asked.isEmpty)
    }

    /// The words of a lost connection are the transport's; what was received is kept.
    @Test func aBodyThatBreaksOffIsNamed() throws {
        let script = Script([start: ScriptedAnswer(200, body: [[1, 2], [3]], fault: "the line is dead")])
        #expect(throws: BodyFault.self) { try follow(script).readAtMost(10) { false } }
        let long = try follow(Script([start: ScriptedAnswer(200, body: [[1, 2], [3], [4]])]))
        #expect(try long.readAtMost(2) { false } == [1, 2, 3])
        #expect(throws: Stopped.self) {
            try follow(Script([start: ScriptedAnswer(200)])).readAtMost(2) { true }
        }
        let right = try follow(Script([start: ScriptedAnswer(200, body: [[1, 2], [], [3]])]))
        #expect(try right.readAtMost(3) { false } == [1, 2, 3])
    }
}

@Suite("Addresses of bundles")
struct BundleAddressTests {
    @Test func anAddressOnTheHubHasItsPartsEscaped() throws {
        let found = try BundleAddress.onHub(
            host: "https://hub.test/", repository: "me/a model", folder: "onnx", revision: "v 1")
        #expect(found.of("sub/xé") == "https://hub.test/me/a%20model/resolve/v%201/onnx/sub/x%c3%a9")
        let top = try BundleAddress.onHub(host: "https://hub.test", repository: "me/x", folder: "")
        #expect(top.of("a%b#c?d") == "https://hub.test/me/x/resolve/main/a%25b%23c%3fd")
        for bad in ["me", "me/../x", "a/b/c", "/", ""] {
            #expect(throws: BadInput.self, "\(bad)") {
                try BundleAddress.onHub(host: "https://hub.test", repository: bad, folder: "")
            }
        }
        #expect(throws: BadInput.self) {
            try BundleAddress.onHub(host: "https://hub.test", repository: "me/x", folder: "../y")
        }
    }

    @Test func aTokenIsNotShown() {
        let address = BundleAddress(base: "https://hub.test", token: "secret")
        var dumped = ""
        dump(address, to: &dumped)
        for shown in [
            "\(address)", String(reflecting: address), dumped, "\([address])", "\(Optional(address) as Any)",
        ] {
            #expect(!shown.contains("secret"), "\(shown)")
        }
    }
}
