/// Sound UTF-8 that somebody else owns; an index counts bytes.
typealias Utf8Text = UnsafeBufferPointer<UInt8>

extension Utf8Text {
    /// Return the character that begins at an index, and where the next one begins.
    @inline(__always)
    func character(at index: Int) -> (code: UInt32, next: Int) {
        let first = UInt32(self[index])
        if first < 0x80 { return (first, index + 1) }
        let second = UInt32(self[index + 1]) & 0x3F
        if first < 0xE0 { return ((first & 0x1F) << 6 | second, index + 2) }
        let third = UInt32(self[index + 2]) & 0x3F
        if first < 0xF0 { return ((first & 0x0F) << 12 | second << 6 | third, index + 3) }
        return ((first & 0x07) << 18 | second << 12 | third << 6 | UInt32(self[index + 3]) & 0x3F, index + 4)
    }

    /// Return where the character begins that ends before an index, of a text that has one there.
    func characterBefore(_ index: Int) -> Int {
        var begin = index - 1
        while self[begin] & 0xC0 == 0x80 { begin -= 1 }
        return begin
    }

    /// Return whether some bytes stand at an index.
    func has(_ bytes: [UInt8], at index: Int) -> Bool {
        if bytes.count > count - index { return false }
        for (offset, byte) in bytes.enumerated() where self[index + offset] != byte { return false }
        return true
    }
}

/// Bytes of U+FFFD.
let replacementBytes: [UInt8] = [0xEF, 0xBF, 0xBD]

/// Decodes UTF-8 that comes in parts, into whole characters only.
///
/// The longest part of what is no character that could have begun one becomes one U+FFFD, as Python
/// and the Unicode standard have it. What comes out is sound UTF-8.
struct Utf8Decoder {
    private var begun: [UInt8] = []
    private var missing = 0
    // What the next byte must be; after some first bytes not all are allowed.
    private var following: ClosedRange<UInt8> = anyFollowing

    private static let anyFollowing: ClosedRange<UInt8> = 0x80...0xBF

    /// Append the characters that some bytes complete.
    mutating func decode(_ bytes: some Sequence<UInt8>, into out: inout [UInt8]) {
        for byte in bytes { decode(byte, into: &out) }
    }

    /// Append the characters that a byte completes.
    mutating func decode(_ byte: UInt8, into out: inout [UInt8]) {
        if missing > 0 {
            if following.contains(byte) { return goOn(byte, into: &out) }
            finish(into: &out)
        }
        switch byte {
        case 0x00...0x7F: out.append(byte)
        case 0xC2...0xDF: begin(byte, missing: 1)
        case 0xE0: begin(byte, missing: 2, following: 0xA0...0xBF)
        case 0xED: begin(byte, missing: 2, following: 0x80...0x9F)
        case 0xE1...0xEF: begin(byte, missing: 2)
        case 0xF0: begin(byte, missing: 3, following: 0x90...0xBF)
        case 0xF4: begin(byte, missing: 3, following: 0x80...0x8F)
        case 0xF1...0xF3: begin(byte, missing: 3)
        default: out += replacementBytes
        }
    }

    /// Append U+FFFD for a character that was never finished, and begin anew.
    mutating func finish(into out: inout [UInt8]) {
        if missing > 0 { out += replacementBytes }
        missing = 0
    }

    private mutating func begin(
        _ byte: UInt8, missing: Int, following: ClosedRange<UInt8> = anyFollowing
    ) {
        begun.removeAll(keepingCapacity: true)
        begun.append(byte)
        self.missing = missing
        self.following = following
    }

    private mutating func goOn(_ byte: UInt8, into out: inout [UInt8]) {
        begun.append(byte)
        missing -= 1
        following = Self.anyFollowing
        if missing == 0 { out += begun }
    }
}
