/// Base64 as tokenizer.model has it: with padding, and without anything else.
enum Base64 {
    private static let values: [Int8] = {
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        var found = Array(repeating: Int8(-1), count: 256)
        for (value, letter) in letters.utf8.enumerated() { found[Int(letter)] = Int8(value) }
        return found
    }()

    /// Return what a letter stands for, or nil where it is none.
    static func value(of letter: UInt8) -> UInt32? {
        let value = values[Int(letter)]
        return value < 0 ? nil : UInt32(value)
    }

    /// Return the bytes that a text stands for, or nil where it is no base64.
    static func decode(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        let padding = text.reversed().prefix { $0 == UInt8(ascii: "=") }.count
        guard text.count % 4 == 0, padding <= 2 else { return nil }
        var out: [UInt8] = []
        out.reserveCapacity(text.count / 4 * 3)
        var bits: UInt32 = 0
        var count = 0
        for letter in text.dropLast(padding) {
            guard let value = value(of: letter) else { return nil }
            bits = bits << 6 | value
            count += 6
            if count >= 8 {
                count -= 8
                out.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            }
        }
        return out
    }
}
