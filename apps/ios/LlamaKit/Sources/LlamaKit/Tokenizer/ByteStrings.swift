/// Many strings of bytes by number, in one piece of memory.
struct ByteStrings: Sendable {
    private struct Span: Sendable {
        var begin: Int32 = 0
        var end: Int32 = 0
    }

    private var bytes: [UInt8] = []
    private var spans: [Span]

    /// Make room for strings, each of which is empty.
    init(count: Int) {
        spans = Array(repeating: Span(), count: count)
    }

    /// Number of strings.
    var count: Int { spans.count }

    /// The bytes of a string; an empty one where nothing was put.
    subscript(index: Int) -> ArraySlice<UInt8> {
        bytes[Int(spans[index].begin)..<Int(spans[index].end)]
    }

    /// Put a string to a number, and make room where there is none.
    mutating func put(_ string: some Collection<UInt8>, at index: Int) {
        while spans.count <= index { spans.append(Span()) }
        let begin = Int32(bytes.count)
        bytes += string
        spans[index] = Span(begin: begin, end: Int32(bytes.count))
    }

    /// Return whether a string is some bytes.
    @inline(__always)
    func isSame(_ index: Int, as other: UnsafeBufferPointer<UInt8>) -> Bool {
        let begin = Int(spans[index].begin)
        if Int(spans[index].end) - begin != other.count { return false }
        return bytes.withUnsafeBufferPointer { bytes in
            for at in 0..<other.count where bytes[begin + at] != other[at] { return false }
            return true
        }
    }
}

/// Numbers of strings by their bytes.
struct ByteTable: Sendable {
    /// The strings, by number.
    let strings: ByteStrings

    private let slots: [Int32]

    /// Make a table; an empty string is left out, and so is a later one of the same bytes.
    init(_ strings: ByteStrings) {
        let size = tableSize(strings.count)
        var slots = Array(repeating: Int32(-1), count: size)
        for number in 0..<strings.count {
            strings[number].withUnsafeBufferPointer { bytes in
                if bytes.isEmpty { return }
                let slot = Self.slot(of: bytes, in: slots, of: strings)
                if slots[slot] < 0 { slots[slot] = Int32(number) }
            }
        }
        self.strings = strings
        self.slots = slots
    }

    /// Return the number of the string with some bytes, or nil where there is none.
    func find(_ bytes: UnsafeBufferPointer<UInt8>) -> Int? {
        let number = slots[Self.slot(of: bytes, in: slots, of: strings)]
        return number < 0 ? nil : Int(number)
    }

    /// Return the number of the string with some bytes, or nil where there is none.
    func find(_ bytes: some Collection<UInt8>) -> Int? {
        let found = bytes.withContiguousStorageIfAvailable { find($0) }
        return found ?? Array(bytes).withUnsafeBufferPointer { find($0) }
    }

    private static func slot(
        of bytes: UnsafeBufferPointer<UInt8>, in slots: [Int32], of strings: ByteStrings
    ) -> Int {
        let mask = slots.count - 1
        var hash: UInt32 = 2_166_136_261
        for byte in bytes { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        var slot = Int(hash ^ hash >> 15) & mask
        while slots[slot] >= 0 && !strings.isSame(Int(slots[slot]), as: bytes) { slot = (slot + 1) & mask }
        return slot
    }
}
