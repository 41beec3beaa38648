import Foundation
import Testing

@testable import LlamaKit

private let texts = 200

private struct RandomTexts {
    var random = SeededGenerator(seed: 14)

    private static let blanks = "    \t\n\r\u{85}\u{A0}\u{3000}".unicodeScalars.map { String($0) }
    private static let endings = ["s", "S", "\u{17F}", "ll", "LL", "lL", "re", "ve", "d", "m", "t", "x"]

    mutating func next() -> String {
        (0..<Int.random(in: 0..<60, using: &random)).map { _ in part() }.joined()
    }

    private mutating func part() -> String {
        switch Int.random(in: 0..<6, using: &random) {
        case 0: Self.blanks.randomElement(using: &random)!
        case 1: "'" + Self.endings.randomElement(using: &random)!
        case 2: String(Int.random(in: 0..<100_000, using: &random))
        case 3: scalar(0x61...0x7A) + scalar(0x41...0x5A)
        case 4: scalar(0...0xD7FF)
        default: scalar(0xE000...0x10FFFF)
        }
    }

    private mutating func scalar(_ codes: ClosedRange<UInt32>) -> String {
        String(Unicode.Scalar(UInt32.random(in: codes, using: &random))!)
    }
}

/// A generator with a seed, so that a failure can be had again: SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}

@Suite("What holds for any text and any ids")
struct TokenizerPropertiesTests {
    @Test func anyTextOfAByteLevelTokenizerComesBack() throws {
        var random = RandomTexts()
        for name in ["demo", "smollm2", "llama3", "gap"] {
            let tokenizer = try name == "demo" ? demoTokenizer() : smallTokenizer(name)
            for _ in 0..<texts {
                let text = random.next()
                try requireSame(tokenizer.decode(tokenizer.encode(text)), text)
            }
        }
    }

    @Test func anyTextOfASentencePieceTokenizerComesBackWithBlanksForTheirLetter() throws {
        var random = RandomTexts()
        for name in ["llama2", "metaspace"] {
            let tokenizer = try smallTokenizer(name)
            for _ in 0..<texts {
                let text = "x" + random.next()
                let blanks = replacing(blankLetter, by: [0x20], in: Array(text.utf8)[...])
                let expected = String(decoding: blanks, as: UTF8.self)
                try requireSame(tokenizer.decode(tokenizer.encode(text)), expected)
            }
        }
    }

    @Test func anyIdsGiveTheSameTextWholeAndOneByOne() throws {
        var random = SeededGenerator(seed: 15)
        for name in ["smollm2", "distilled", "llama2", "openllama", "llama2-with-tools"] {
            let tokenizer = try smallTokenizer(name)
            let stream = tokenizer.streamDecoder(continues: false)
            for _ in 0..<texts {
                let ids = (0..<Int.random(in: 0..<30, using: &random)).map { _ in
                    Int32.random(in: 0..<Int32(tokenizer.vocabSize), using: &random)
                }
                let pieces = try ids.map(stream.push)
                try requireSame(pieces.joined() + stream.flush(), tokenizer.decode(ids))
            }
        }
    }

    @Test func bytesDecodeAsSwiftsOwnDecoderHasItHoweverTheyAreCut() throws {
        let likely: [UInt8] = [
            0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0,
            0xF1,
            0xF4, 0xF5, 0xFF,
        ]
        var random = SeededGenerator(seed: 16)
        for _ in 0..<20 * texts {
            let count = Int.random(in: 0..<12, using: &random)
            let bytes = (0..<count).map { _ in likely.randomElement(using: &random)! }
            var decoder = Utf8Decoder()
            var text: [UInt8] = []
            let cut = Int.random(in: 0...count, using: &random)
            decoder.decode(bytes[..<cut], into: &text)
            #expect(String(validating: text, as: UTF8.self) != nil)
            decoder.decode(bytes[cut...], into: &text)
            decoder.finish(into: &text)
            try requireSame(String(decoding: text, as: UTF8.self), String(decoding: bytes, as: UTF8.self))
        }
    }

    @Test func mergingIsThatOfTheSimplestRule() {
        var random = SeededGenerator(seed: 17)
        func token() -> Int32 { Int32.random(in: 0..<8, using: &random) }
        for _ in 0..<texts {
            // Some ranks are shared, as those of one token's several pairs are.
            let merges = (0..<40).map { rank in
                Merge(left: token(), right: token(), rank: Int32(rank) / 2, result: token())
            }
            var rules: [[Int32]: Merge] = [:]
            for merge in merges { rules[[merge.left, merge.right]] = merge }
            var tokens = (0..<Int.random(in: 1..<60, using: &random)).map { _ in token() }
            var expected = tokens
            while true {
                let found = (0..<expected.count - 1).compactMap { at in
                    rules[[expected[at], expected[at + 1]]].map { (at: at, merge: $0) }
                }
                guard let best = found.min(by: { ($0.merge.rank, $0.at) < ($1.merge.rank, $1.at) }) else {
                    break
                }
                expected[best.at] = best.merge.result
                expected.remove(at: best.at + 1)
            }
            Merger(MergeTable(merges)).merge(&tokens)
            #expect(tokens == expected)
        }
    }

    @Test func aWordOf100000LettersCostsNoSquare() throws {
        var random = SeededGenerator(seed: 18)
        let word = String(repeating: "immediately", count: 10_000)
        let letters = (0..<100_000).map { _ in UInt8.random(in: 0x61...0x7A, using: &random) }
        let long = [
            word, String(decoding: letters, as: UTF8.self), String(repeating: "a", count: 100_000),
            String(repeating: " ", count: 100_000) + "h",
        ]
        for tokenizer in [try demoTokenizer(), try smallTokenizer("llama2")] {
            let begun = ContinuousClock.now
            for text in long { try requireSame(tokenizer.decode(tokenizer.encode(text)), text) }
            // A square would be ten thousand million steps each.
            #expect(ContinuousClock.now - begun < .seconds(20))
        }
    }

    @Test func severalTasksEncodeAtOnce() async throws {
        var random = RandomTexts()
        let text = (0..<40).map { _ in random.next() }.joined(separator: " ")
        let tokenizer = try demoTokenizer()
        let expected = tokenizer.encode(text)
        let same = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<80 { group.addTask { tokenizer.encode(text) == expected } }
            return await group.reduce(into: 0) { count, isSame in count += isSame ? 1 : 0 }
        }
        #expect(same == 80)
    }
}
