/// GPT-2's letters: a printable character for each byte, in which byte-level vocabularies are spelt.
enum ByteLetters {
    /// Code point of each byte's letter `[256]`.
    // Themselves where they can be printed, else the next character from U+0100 on.
    private static let letters: [UInt16] = {
        var next: UInt16 = 0x100
        return (0..<256).map { byte in
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return UInt16(byte)
            default:
                next += 1
                return next - 1
            }
        }
    }()

    /// Byte of each letter by its code point; -1 for what is none.
    private static let bytes: [Int16] = {
        let last = letters.max() ?? 0
        var found = Array(repeating: Int16(-1), count: Int(last) + 1)
        for (byte, letter) in letters.enumerated() { found[Int(letter)] = Int16(byte) }
        return found
    }()

    /// Spell bytes in letters, as UTF-8.
    static func spell(_ token: some Sequence<UInt8>) -> [UInt8] {
        var spelt: [UInt8] = []
        for byte in token {
            let letter = letters[Int(byte)]
            if letter < 0x80 {
                spelt.append(UInt8(letter))
            } else {
                spelt.append(0xC0 | UInt8(letter >> 6))
                spelt.append(0x80 | UInt8(letter & 0x3F))
            }
        }
        return spelt
    }

    /// Return the bytes that a token in letters stands for, or nil where it is spelt otherwise.
    static func bytes(of token: Utf8Text) -> [UInt8]? {
        var found: [UInt8] = []
        found.reserveCapacity(token.count)
        var at = 0
        while at < token.count {
            let (letter, next) = token.character(at: at)
            guard letter < bytes.count, bytes[Int(letter)] >= 0 else { return nil }
            found.append(UInt8(bytes[Int(letter)]))
            at = next
        }
        return found
    }
}
