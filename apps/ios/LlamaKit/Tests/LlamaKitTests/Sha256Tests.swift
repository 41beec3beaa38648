import Foundation
import Testing

@testable import LlamaKit

@Suite("SHA-256, the system's and ours")
struct Sha256Tests {
    @Test(
        arguments: [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ])
    func knownTexts(text: String, expected: String) {
        #expect(pure([Array(text.utf8)]) == expected)
        #expect(Sha256.hex(of: Array(text.utf8)) == expected)
    }

    /// Of 1,000,000 times the letter a, FIPS 180-4's long example.
    @Test func aMillionLetters() {
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        let piece = [UInt8](repeating: UInt8(ascii: "a"), count: 10_000)
        #expect(pure(Array(repeating: piece, count: 100)) == expected)
    }

    /// Every length around the ends of blocks: the digests of the first n bytes 0, 1, 2..., in hex, one
    /// after the other, have the digest that Python's hashlib gives.
    @Test func everyLength() {
        let all = (0..<300).map { count in pure([(0..<count).map { UInt8(truncatingIfNeeded: $0) }]) }
        #expect(
            pure([Array(all.joined().utf8)])
                == "ff4223406fc6473b721b409cbe70bbeabc0c8d0d0f55c370497cc0c25606895f")
    }

    @Test func piecesOfAnyLength() {
        let content = noise(5000, seed: 3)
        let whole = pure([content])
        var random = TestRandom(5)
        for _ in 0..<50 {
            var pieces = [[UInt8]]()
            var rest = content[...]
            while !rest.isEmpty {
                let count = min(rest.count, random.below(200))
                pieces.append(Array(rest.prefix(count)))
                rest = rest.dropFirst(count)
            }
            #expect(pure(pieces) == whole)
        }
        #expect(Sha256.hex(of: content) == whole)
    }

    private func pure(_ pieces: [[UInt8]]) -> String {
        var digest = PureSha256()
        for piece in pieces { piece.withUnsafeBytes { digest.update($0) } }
        return hex(digest.finished())
    }
}
