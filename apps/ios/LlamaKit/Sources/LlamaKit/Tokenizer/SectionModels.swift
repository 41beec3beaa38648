/// How text between added tokens becomes ids.
protocol SectionModel: Sendable {
    /// Return what encodes the sections of one text, by one thread.
    func makeEncoder() -> any SectionEncoder
}

/// Encodes the sections of one text.
protocol SectionEncoder: AnyObject {
    /// Append the ids of a section.
    ///
    /// - Parameters:
    ///   - text: a section that is not empty, normalised
    ///   - isFirst: whether it begins where the text does
    ///   - out: where the ids go
    func encode(_ text: Utf8Text, isFirst: Bool, into out: inout [Int32])
}

/// What stands for a character without a token.
struct Unknown: Sendable {
    /// The token, or nil where such a character is left out.
    let id: Int32?

    /// Whether several in a row become one token.
    let fuses: Bool
}

/// Puts the token for unknown characters between the others, in the library's order.
private struct UnknownRun {
    let unknown: Unknown
    private var waits = false

    init(_ unknown: Unknown) {
        self.unknown = unknown
    }

    mutating func meet(_ out: inout [Int32]) {
        guard let id = unknown.id else { return }
        if waits && !unknown.fuses { out.append(id) }
        waits = true
    }

    mutating func end(_ out: inout [Int32]) {
        if waits, let id = unknown.id { out.append(id) }
        waits = false
    }
}

/// Byte-level BPE: each piece of a text is merged from its bytes.
struct ByteLevelModel: SectionModel {
    /// What cuts the pieces.
    let splitters: [any Splitter]

    /// Id of each byte's token `[256]`; -1 for none.
    let byteIds: [Int32]

    let merges: MergeTable

    /// Tokens that a whole piece becomes without merging; nil: none.
    let words: ByteTable?

    let unknown: Unknown

    func makeEncoder() -> any SectionEncoder { Encoder(self) }

    private final class Encoder: SectionEncoder {
        private let model: ByteLevelModel
        private let merger: Merger
        private var tokens: [Int32] = []

        init(_ model: ByteLevelModel) {
            self.model = model
            merger = Merger(model.merges)
        }

        func encode(_ text: Utf8Text, isFirst: Bool, into out: inout [Int32]) {
            model.splitters.split(text, from: 0, to: text.count) { begin, end in
                let piece = Utf8Text(rebasing: text[begin..<end])
                if let word = model.words?.find(piece) {
                    out.append(Int32(word))
                } else {
                    addBytes(piece)
                    merger.merge(&tokens)
                    out += tokens
                }
            }
        }

        private func addBytes(_ bytes: Utf8Text) {
            tokens.removeAll(keepingCapacity: true)
            var run = UnknownRun(model.unknown)
            for byte in bytes {
                let id = model.byteIds[Int(byte)]
                if id < 0 {
                    run.meet(&tokens)
                } else {
                    run.end(&tokens)
                    tokens.append(id)
                }
            }
            run.end(&tokens)
        }
    }
}

/// Ids of single characters: a table of the first plane, and a map of the others.
struct CharacterIds: Sendable {
    private var low = Array(repeating: Int32(-1), count: 0x10000)
    private var high: [UInt32: Int32] = [:]

    init(_ vocabulary: Vocabulary) {
        for (token, id) in vocabulary.tokens {
            token.withUnsafeBufferPointer { token in
                if token.isEmpty { return }
                let (code, next) = token.character(at: 0)
                if next < token.count { return }
                if code < low.count { low[Int(code)] = id } else { high[code] = id }
            }
        }
    }

    /// Return the id of a character, or nil.
    func id(of code: UInt32) -> Int32? {
        if code >= low.count { return high[code] }
        let id = low[Int(code)]
        return id < 0 ? nil : id
    }
}

/// SentencePiece's kind of BPE: a section is merged from its characters, all of it as one word.
struct PieceModel: SectionModel {
    /// Ids of single characters.
    let characters: CharacterIds

    /// Ids of the bytes of other characters `[256]`, -1 for none; nil: they are unknown.
    let byteIds: [Int32]?

    let merges: MergeTable

    /// Tokens that a whole section becomes without merging; nil: none.
    let words: Vocabulary?

    let unknown: Unknown

    /// What is done to a section before, such as writing blanks as letters.
    let prepare: @Sendable (_ text: Utf8Text, _ isFirst: Bool) -> [UInt8]

    func makeEncoder() -> any SectionEncoder { Encoder(self) }

    private final class Encoder: SectionEncoder {
        private let model: PieceModel
        private let merger: Merger
        private var tokens: [Int32] = []

        init(_ model: PieceModel) {
            self.model = model
            merger = Merger(model.merges)
        }

        func encode(_ text: Utf8Text, isFirst: Bool, into out: inout [Int32]) {
            model.prepare(text, isFirst).withUnsafeBufferPointer { section in
                if let word = model.words?.id(of: section) {
                    out.append(word)
                } else {
                    addCharacters(section)
                    merger.merge(&tokens)
                    out += tokens
                }
            }
        }

        private func addCharacters(_ text: Utf8Text) {
            tokens.removeAll(keepingCapacity: true)
            var run = UnknownRun(model.unknown)
            var at = 0
            while at < text.count {
                let (code, next) = text.character(at: at)
                if let id = model.characters.id(of: code) {
                    run.end(&tokens)
                    tokens.append(id)
                } else if !addBytes(text[at..<next]) {
                    run.meet(&tokens)
                }
                at = next
            }
            run.end(&tokens)
        }

        private func addBytes(_ bytes: Slice<Utf8Text>) -> Bool {
            guard let ids = model.byteIds, bytes.allSatisfy({ ids[Int($0)] >= 0 }) else { return false }
            for byte in bytes { tokens.append(ids[Int(byte)]) }
            return true
        }
    }
}
