/// What ids stand for, and how their texts are put together.
protocol Decoding: Sendable {
    /// Begin to decode a text; `continues` where other text comes before.
    func makeStream(continues: Bool) -> any Utf8Stream
}

/// A decoder that appends to bytes; what it appended is sound UTF-8.
protocol Utf8Stream: StreamDecoder {
    /// Append the text that an id completes.
    ///
    /// - Throws: ``PromptError`` if the id is outside the vocabulary
    func push(_ id: Int32, into out: inout [UInt8]) throws

    /// Append what was held back, and begin anew.
    func flush(into out: inout [UInt8])
}

extension Utf8Stream {
    func push(_ id: Int32) throws -> String {
        var out: [UInt8] = []
        try push(id, into: &out)
        return String(decoding: out, as: UTF8.self)
    }

    func flush() -> String {
        var out: [UInt8] = []
        flush(into: &out)
        return String(decoding: out, as: UTF8.self)
    }
}

/// Refuse an id that no token has.
private func requireId(_ id: Int32, _ vocabSize: Int) throws {
    if id >= 0 && Int(id) < vocabSize { return }
    throw PromptError(
        "token id \(id) is outside the vocabulary of \(vocabSize)",
        hint: "Use the tokenizer of the model that wrote the ids: get the whole bundle again.")
}

/// Every id stands for some bytes, whatever comes before it.
struct ByteDecoding: Decoding {
    /// Bytes by id; none for an id in a gap, which means nothing.
    let tokens: ByteStrings

    func makeStream(continues: Bool) -> any Utf8Stream { Stream(tokens) }

    private final class Stream: Utf8Stream {
        private let tokens: ByteStrings
        private var utf8 = Utf8Decoder()

        init(_ tokens: ByteStrings) {
            self.tokens = tokens
        }

        func push(_ id: Int32, into out: inout [UInt8]) throws {
            try requireId(id, tokens.count)
            utf8.decode(tokens[Int(id)], into: &out)
        }

        func flush(into out: inout [UInt8]) {
            utf8.finish(into: &out)
        }
    }
}

/// Every id stands for a text, or for one byte of a character that has no piece.
struct PieceDecoding: Decoding {
    /// Tokens by id as the file spells them; none for an id in a gap.
    let pieces: ByteStrings

    /// Number of blanks that fall away at the very beginning.
    let droppedBlanks: Int

    func makeStream(continues: Bool) -> any Utf8Stream {
        Stream(pieces, blanksAtBegin: continues ? 0 : droppedBlanks)
    }

    private final class Stream: Utf8Stream {
        private let pieces: ByteStrings
        private let blanksAtBegin: Int
        private var blanksLeft: Int
        private var bytes: [UInt8] = []

        init(_ pieces: ByteStrings, blanksAtBegin: Int) {
            self.pieces = pieces
            self.blanksAtBegin = blanksAtBegin
            blanksLeft = blanksAtBegin
        }

        func push(_ id: Int32, into out: inout [UInt8]) throws {
            try requireId(id, pieces.count)
            let begin = out.count
            let piece = pieces[Int(id)]
            if let byte = byteOfPiece(piece) {
                bytes.append(byte)
                appendWholeCharacters(to: &out)
            } else {
                appendEndOfBytes(to: &out)
                out += replacing(blankLetter, by: [UInt8(ascii: " ")], in: piece)
            }
            dropBlanks(from: begin, in: &out)
        }

        func flush(into out: inout [UInt8]) {
            let begin = out.count
            appendEndOfBytes(to: &out)
            dropBlanks(from: begin, in: &out)
            blanksLeft = blanksAtBegin
        }

        private func appendEndOfBytes(to out: inout [UInt8]) {
            for _ in bytes { out += replacementBytes }
            bytes.removeAll(keepingCapacity: true)
        }

        private func appendWholeCharacters(to out: inout [UInt8]) {
            while let size = sizeOfFirst() {
                out += size > 0 ? Array(bytes[..<size]) : replacementBytes
                bytes.removeFirst(max(1, size))
            }
        }

        /// Return the size of the first character; 0 for a byte that begins none, nil where it is not whole.
        private func sizeOfFirst() -> Int? {
            var text: [UInt8] = []
            var decoder = Utf8Decoder()
            for (index, byte) in bytes.enumerated() {
                decoder.decode(byte, into: &text)
                if !text.isEmpty { return text.elementsEqual(bytes[...index]) ? index + 1 : 0 }
            }
            return nil
        }

        private func dropBlanks(from begin: Int, in out: inout [UInt8]) {
            if blanksLeft == 0 || out.count == begin { return }
            let blanks = out[begin...].prefix(blanksLeft).prefix { $0 == UInt8(ascii: " ") }.count
            let isAll = blanks == out.count - begin
            out.removeSubrange(begin..<begin + blanks)
            blanksLeft = isAll ? blanksLeft - blanks : 0
        }
    }
}

/// UTF-8 of the letter that SentencePiece writes for a blank, U+2581.
let blankLetter: [UInt8] = [0xE2, 0x96, 0x81]

/// Return the byte that SentencePiece's `<0x0A>` stands for, or nil where it is another piece.
func byteOfPiece(_ piece: ArraySlice<UInt8>) -> UInt8? {
    let at = piece.startIndex
    guard piece.count == 6, piece.starts(with: "<0x".utf8), piece[at + 5] == UInt8(ascii: ">"),
        let high = hexadecimalDigit(piece[at + 3]), let low = hexadecimalDigit(piece[at + 4])
    else { return nil }
    return UInt8(high << 4 | low)
}

/// Return bytes with others in the place of some.
func replacing(_ old: [UInt8], by new: [UInt8], in text: ArraySlice<UInt8>) -> [UInt8] {
    guard let first = old.first else { return Array(text) }
    var out: [UInt8] = []
    out.reserveCapacity(text.count)
    var rest = text
    while let at = rest.firstIndex(of: first) {
        out += rest[..<at]
        if rest[at...].starts(with: old) {
            out += new
            rest = rest[(at + old.count)...]
        } else {
            out.append(first)
            rest = rest[(at + 1)...]
        }
    }
    return out + rest
}
