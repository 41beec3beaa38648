import Synchronization

@testable import LlamaKit

/// A tokenizer whose ids are UTF-8's bytes, and special tokens after them.
final class LetterTokenizer: Tokenizer {
    private static let bytes = 256

    let vocabSize: Int
    let specialTokens: [Utf8Key: Int32]
    let prefixIds: [Int32] = []
    private let record = Mutex<[(text: String, continues: Bool)]>([])

    /// - Parameter names: names of the special tokens, from id 256 on
    init(_ names: [String] = []) {
        vocabSize = Self.bytes + names.count
        let pairs = names.enumerated().map { (Utf8Key($1), Int32(Self.bytes + $0)) }
        specialTokens = Dictionary(uniqueKeysWithValues: pairs)
    }

    /// What was encoded, in order.
    var encoded: [String] { record.withLock { $0.map(\.text) } }

    /// Whether each of them came behind something else.
    var wereContinuing: [Bool] { record.withLock { $0.map(\.continues) } }

    func encode(_ text: String, continues: Bool) -> [Int32] {
        record.withLock { $0.append((text, continues)) }
        return text.utf8.map { Int32($0) }
    }

    func tokenName(_ id: Int32) -> String? { specialTokens.first { $0.value == id }?.key.text }

    func decode(_ ids: [Int32]) throws -> String {
        String(decoding: ids.map { UInt8(truncatingIfNeeded: $0) }, as: UTF8.self)
    }

    func streamDecoder(continues: Bool) -> any StreamDecoder { LetterDecoder() }
}

private final class LetterDecoder: StreamDecoder {
    private static let longest = 4
    private var held: [UInt8] = []

    func push(_ id: Int32) -> String {
        held.append(UInt8(truncatingIfNeeded: id))
        let text = String(decoding: held, as: UTF8.self)
        if text.unicodeScalars.last == "\u{FFFD}" && held.count < Self.longest { return "" }
        held = []
        return text
    }

    func flush() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }
}
