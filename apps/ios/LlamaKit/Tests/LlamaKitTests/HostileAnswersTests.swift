import Foundation
import Testing

@testable import LlamaKit

private let content = noise(3000, seed: 8)

/// A server whose answers make no sense, but for one in some. Unchecked, because one thread uses it.
private final class Madness: Http, @unchecked Sendable {
    private var random: TestRandom
    private let honestIn: Int

    /// - Parameter honestIn: one answer in so many is as it should be
    init(_ seed: UInt64, honestIn: Int) {
        random = TestRandom(seed)
        self.honestIn = honestIn
    }

    func get(
        _ url: String, token: String?, from: Int64, isStopped: () -> Bool
    ) throws -> any HttpAnswer {
        let rest = Array(content[Int(from)...])
        if random.below(honestIn) == 0 {
            let range = "bytes \(from)-\(content.count - 1)/\(content.count)"
            return MadAnswer(from == 0 ? 200 : 206, ["content-range": range], pieces(rest))
        }
        if random.below(20) == 0 { throw NetworkError("no way", hint: "") }
        let status = [200, 200, 206, 206, 416, 204, 301, 401, 404, 500, 0, -1, Int.max][random.below(13)]
        var headers = [String: String]()
        if random.below(3) != 0 { headers["content-range"] = range(from) }
        if random.below(2) == 0 { headers["content-length"] = number() }
        if random.below(12) == 0 { headers["content-encoding"] = ["gzip", "identity", ""][random.below(3)] }
        let bodies = [rest, content, Array(rest.prefix(random.below(2000))), rest + rest, []]
        var body = bodies[random.below(bodies.count)]
        if random.below(4) == 0 && !body.isEmpty { body[random.below(body.count)] ^= 1 }
        return MadAnswer(status, headers, pieces(body), breaksOff: random.below(4) == 0)
    }

    private func pieces(_ body: [UInt8]) -> [Data] {
        stride(from: 0, to: body.count, by: 700).map { Data(body[$0..<min($0 + 700, body.count)]) }
            + [Data()]
    }

    private func number() -> String {
        let numbers = [
            "0", "-1", "3000", "9223372036854775807", "-9223372036854775808", "99999999999999999999",
            "abc", "", "+7", "3e3", " 3000",
        ]
        return numbers[random.below(numbers.count)]
    }

    private func range(_ from: Int64) -> String {
        let ranges = [
            "bytes \(from)-\(content.count - 1)/\(content.count)", "bytes \(from)-/\(content.count)",
            "bytes */\(content.count)", "bytes \(number())-\(number())/\(number())", "bytes", "",
            "items 0-1/2",
            "bytes \(from)-\u{301}/\(content.count)",
        ]
        return ranges[random.below(ranges.count)]
    }
}

private final class MadAnswer: HttpAnswer {
    let status: Int
    private let headers: [String: String]
    private var pieces: [Data]
    private let breaksOff: Bool

    init(_ status: Int, _ headers: [String: String], _ pieces: [Data], breaksOff: Bool = false) {
        self.status = status
        self.headers = headers
        self.pieces = pieces
        self.breaksOff = breaksOff
    }

    func header(_ name: String) -> String? { headers[name.lowercased()] }

    func read() throws -> Data? {
        if !pieces.isEmpty { return pieces.removeFirst() }
        if breaksOff { throw BodyFault("it was cut") }
        return nil
    }

    func close() {}
}

@Suite("Answers of a server that makes no sense")
struct HostileAnswersTests {
    @Test func aFileIsAbsentOrRightWhateverIsAnswered() throws {
        let folder = try TestFolder()
        let target = folder.url.at("file")
        let entry = FileEntry(
            path: "file", sha256: Sha256.hex(of: content), sizeBytes: Int64(content.count))
        let server = Madness(1, honestIn: 12)
        var (whole, refused) = (0, 0)
        for _ in 0..<1500 {
            do {
                try FileDownload(
                    http: server, url: "https://hub.test/file", token: nil, target: target, entry: entry,
                    isStopped: { false }, onBytes: { #expect((0...entry.sizeBytes).contains($0)) }
                ).run()
                #expect(try stored(target) == content)
                deleteTree(target)
                whole += 1
            } catch let error as any AppError {
                #expect(!error.message.isEmpty)
                #expect(lengthOfFile(target) == nil)
                refused += 1
            }
            #expect(lengthOfFile(folder.url.at("file.part")) ?? 0 <= entry.sizeBytes)
        }
        #expect(whole > 50 && refused > 500, "\(whole) whole, \(refused) refused")
    }
}
