/// Text to ids and back; what differs from file to file are its parts.
struct BpeTokenizer: Tokenizer {
    /// What is done to a section of text before it is split; the first may be done otherwise.
    typealias Change = @Sendable (_ text: [UInt8], _ isFirst: Bool) -> [UInt8]

    let vocabSize: Int
    let prefixIds: [Int32]
    let specialTokens: [Utf8Key: Int32]

    private let added: AddedTokens
    private let changes: [Change]
    private let sections: any SectionModel
    private let decoding: any Decoding
    private let inText: AddedTokenFinder
    private let inNormalized: AddedTokenFinder

    /// Make a tokenizer of its parts.
    ///
    /// - Parameters:
    ///   - vocabSize: the largest id and one
    ///   - prefixIds: ids that stand before every text
    ///   - added: tokens that were added to the vocabulary
    ///   - changes: what is done to text before it is split; a list of none changes nothing
    ///   - sections: what turns text between added tokens into ids
    ///   - decoding: what turns ids into text
    init(
        vocabSize: Int, prefixIds: [Int32], added: AddedTokens, changes: [Change],
        sections: any SectionModel, decoding: any Decoding
    ) {
        self.vocabSize = vocabSize
        self.prefixIds = prefixIds
        self.added = added
        self.changes = changes
        self.sections = sections
        self.decoding = decoding
        specialTokens = added.specialTokens()
        let texts = added.tokens.map {
            (normalized: $0.token.normalized, text: Array($0.token.name.utf8), id: $0.id)
        }
        inText = AddedTokenFinder(texts.filter { !$0.normalized }.map { ($0.text, $0.id) }, of: added)
        let normalized = texts.filter(\.normalized).map { each in
            (changes.reduce(each.text) { $1($0, true) }, each.id)
        }
        inNormalized = AddedTokenFinder(normalized, of: added)
    }

    func encode(_ text: String, continues: Bool) -> [Int32] {
        var text = text
        var out: [Int32] = []
        let encoder = sections.makeEncoder()
        text.withUTF8 { text in
            for section in inText.cut(text) {
                switch section {
                case .token(let id): out.append(id)
                case .text(let range):
                    let part = Utf8Text(rebasing: text[range])
                    let isFirst = range.lowerBound == 0 && !continues
                    if changes.isEmpty {
                        encode(part, isFirst: isFirst, by: encoder, into: &out)
                    } else {
                        changes.reduce(Array(part)) { $1($0, isFirst) }.withUnsafeBufferPointer {
                            encode($0, isFirst: isFirst, by: encoder, into: &out)
                        }
                    }
                }
            }
        }
        return out
    }

    /// Encode a section that is normalised.
    private func encode(
        _ text: Utf8Text, isFirst: Bool, by encoder: any SectionEncoder, into out: inout [Int32]
    ) {
        for section in inNormalized.cut(text) {
            switch section {
            case .token(let id): out.append(id)
            case .text(let range) where !range.isEmpty:
                let part = Utf8Text(rebasing: text[range])
                encoder.encode(part, isFirst: isFirst && range.lowerBound == 0, into: &out)
            case .text: break
            }
        }
    }

    func tokenName(_ id: Int32) -> String? { added[id]?.name }

    func decode(_ ids: [Int32]) throws -> String {
        let stream = decoding.makeStream(continues: false)
        var out: [UInt8] = []
        for id in ids { try stream.push(id, into: &out) }
        stream.flush(into: &out)
        return String(decoding: out, as: UTF8.self)
    }

    func streamDecoder(continues: Bool) -> any StreamDecoder { decoding.makeStream(continues: continues) }
}
