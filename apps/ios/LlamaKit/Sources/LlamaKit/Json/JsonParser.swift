/// Largest size of a text that is parsed, in bytes: a tokenizer.json of 256,000 tokens has 33 million.
public let mostJsonBytes = 128 * 1024 * 1024

/// Deepest nesting that is parsed; tokenizer.json, the deepest that is read, has 9 levels.
public let mostJsonLevels = 64

private let mostDigits = 40
private let shownCharacters = 80

/// Parse one JSON value of somebody else's; see ``parseJson(_:where:)-([UInt8],_)``.
public func parseJson(_ text: String, where place: String) throws -> Json {
    var text = text
    return try text.withUTF8 { bytes in
        var parser = JsonParser(text: bytes, place: place)
        return try parser.parse()
    }
}

/// Parse one JSON value of somebody else's, in time linear in its length.
///
/// What readers disagree about is refused: a key given twice, NaN and infinity, numbers that no
/// field has, nesting that no format needs. So is whatever the JSON standard does not have, and half of a
/// surrogate pair, which no Swift string can hold.
///
/// - Parameters:
///   - bytes: UTF-8
///   - place: what is read, for the message: a file's name or a server's address
/// - Throws: ``BadInput`` if it is no JSON, or no JSON that can be trusted
public func parseJson(_ bytes: [UInt8], where place: String) throws -> Json {
    try bytes.withUnsafeBufferPointer { bytes in
        var parser = JsonParser(text: bytes, place: place)
        return try parser.parse()
    }
}

private struct JsonParser {
    let text: UnsafeBufferPointer<UInt8>
    let place: String
    private var at = 0
    private var levels = 0

    init(text: UnsafeBufferPointer<UInt8>, place: String) {
        self.text = text
        self.place = place
    }

    mutating func parse() throws -> Json {
        if text.count > mostJsonBytes { throw refusal("it is longer than \(mostJsonBytes) bytes") }
        let value = try value()
        if at < text.count { throw refusal(expected: "the end") }
        return value
    }

    private var byte: UInt8? { at < text.count ? text[at] : nil }

    private mutating func value() throws -> Json {
        skipSpace()
        let value: Json
        switch byte {
        case UInt8(ascii: "{"):
            try descend()
            value = .object(try members())
            levels -= 1
        case UInt8(ascii: "["):
            try descend()
            value = .array(try items())
            levels -= 1
        case UInt8(ascii: "\""): value = .text(try string())
        case UInt8(ascii: "t"): value = try word("true", .bool(true))
        case UInt8(ascii: "f"): value = try word("false", .bool(false))
        case UInt8(ascii: "n"): value = try word("null", .null)
        default: value = .number(try number())
        }
        skipSpace()
        return value
    }

    private mutating func descend() throws {
        levels += 1
        if levels > mostJsonLevels { throw refusal("it is nested deeper than \(mostJsonLevels) levels") }
        at += 1
        skipSpace()
    }

    private mutating func members() throws -> JsonObject {
        var object = JsonObject()
        if take("}") { return object }
        while true {
            skipSpace()
            if byte != UInt8(ascii: "\"") { throw refusal(expected: "a key in quotes") }
            let key = try string()
            skipSpace()
            if !take(":") { throw refusal(expected: "':' after a key") }
            if !object.appendNew(key, try value()) {
                let shown = Json.text(key).write().prefix(shownCharacters)
                throw refusal("the key \(shown) is given twice")
            }
            if take("}") { return object }
            if !take(",") { throw refusal(expected: "',' or '}'") }
        }
    }

    private mutating func items() throws -> [Json] {
        var items: [Json] = []
        if take("]") { return items }
        while true {
            items.append(try value())
            if take("]") { return items }
            if !take(",") { throw refusal(expected: "',' or ']'") }
        }
    }

    private mutating func word(_ word: StaticString, _ value: Json) throws -> Json {
        let count = word.utf8CodeUnitCount
        let letters = UnsafeBufferPointer(start: word.utf8Start, count: count)
        if !text[at...].starts(with: letters) { throw refusal(expected: "a value") }
        at += count
        return value
    }

    private mutating func number() throws -> JsonNumber {
        guard let end = numberEnd(text, from: at) else { throw refusal(expected: "a value") }
        let number = JsonNumber(digits: String(decoding: text[at..<end], as: UTF8.self))
        let digits = end - at
        if number.isWhole && digits > mostDigits {
            throw refusal("a whole number of \(digits) digits is too large")
        }
        if !number.isWhole && number.double().isInfinite {
            throw refusal("\(number.text.prefix(shownCharacters)) is too large for a number")
        }
        at = end
        return number
    }

    private mutating func string() throws -> String {
        at += 1
        // Most strings hold no escape and are one piece of the text.
        let begin = at
        skipPlain()
        if byte == UInt8(ascii: "\"") {
            let read = try sound(text[begin..<at], from: begin)
            at += 1
            return read
        }
        var read = Array(text[begin..<at])
        while byte != UInt8(ascii: "\"") {
            switch byte {
            case nil: throw refusal(expected: "'\"' at the end of a string")
            case UInt8(ascii: "\\"): try escaped(into: &read)
            default: throw refusal(expected: "no control character in a string")
            }
            let plain = at
            skipPlain()
            read += text[plain..<at]
        }
        let whole = try sound(read[...], from: begin)
        at += 1
        return whole
    }

    private mutating func skipPlain() {
        while at < text.count {
            let byte = text[at]
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte < 0x20 { return }
            at += 1
        }
    }

    private mutating func sound(_ bytes: some Collection<UInt8>, from begin: Int) throws -> String {
        guard let read = String(validating: bytes, as: UTF8.self) else {
            at = begin
            throw refusal(expected: "a string of UTF-8")
        }
        return read
    }

    private mutating func escaped(into read: inout [UInt8]) throws {
        at += 1
        if let index = byte.flatMap({ letter in escapes.firstIndex { $0.letter == letter } }) {
            at += 1
            read.append(escapes[index].meaning)
            return
        }
        if byte != UInt8(ascii: "u") { throw refusal(expected: "an escape such as \\n") }
        let first = try hexadecimal()
        var code = UInt32(first)
        if UTF16.isLeadSurrogate(first) {
            let hasNext =
                byte == UInt8(ascii: "\\") && at + 1 < text.count && text[at + 1] == UInt8(ascii: "u")
            guard hasNext else { throw refusal(expected: "the other half of a surrogate pair") }
            at += 1
            let second = try hexadecimal()
            guard UTF16.isTrailSurrogate(second) else {
                throw refusal(expected: "the other half of a surrogate pair before this place")
            }
            code = 0x10000 + (UInt32(first) & 0x3FF) << 10 + UInt32(second) & 0x3FF
        }
        guard let scalar = Unicode.Scalar(code) else {
            throw refusal(expected: "the first half of a surrogate pair before this place")
        }
        read += scalar.utf8
    }

    /// Read the digits after a `u`, where the parser stands.
    private mutating func hexadecimal() throws -> UInt16 {
        var code: UInt16 = 0
        for place in at + 1...at + 4 {
            let digit = place < text.count ? hexadecimalDigit(text[place]) : nil
            guard let digit else { throw refusal(expected: "four hexadecimal digits after \\u") }
            code = code << 4 | digit
        }
        at += 5
        return code
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        if byte != UInt8(ascii: character) { return false }
        at += 1
        return true
    }

    private mutating func skipSpace() {
        while at < text.count {
            switch text[at] {
            case 0x20, 0x0A, 0x0D, 0x09: at += 1
            default: return
            }
        }
    }

    private func refusal(expected: String) -> BadInput {
        let before = text[..<at]
        let line = before.count { $0 == UInt8(ascii: "\n") } + 1
        let ofLine = before.suffix(at - (before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0))
        // As UTF-16 counts: a character of four bytes is two, one of fewer is one.
        let character = ofLine.count { $0 & 0xC0 != 0x80 } + ofLine.count { $0 >= 0xF0 } + 1
        let next = String(decoding: text[at...].prefix(4), as: UTF8.self).unicodeScalars.first
        let found = next.map { Json.text(String($0)).write() } ?? "the end"
        return refusal("expected \(expected) in line \(line), character \(character), found \(found)")
    }

    private func refusal(_ reason: String) -> BadInput {
        BadInput("\(place) is not valid JSON: \(reason)", hint: "Get the file again from where it came from.")
    }
}

private let escapes: [(letter: UInt8, meaning: UInt8)] = [
    (UInt8(ascii: "\""), UInt8(ascii: "\"")), (UInt8(ascii: "\\"), UInt8(ascii: "\\")),
    (UInt8(ascii: "/"), UInt8(ascii: "/")), (UInt8(ascii: "b"), 0x08), (UInt8(ascii: "f"), 0x0C),
    (UInt8(ascii: "n"), 0x0A), (UInt8(ascii: "r"), 0x0D), (UInt8(ascii: "t"), 0x09),
]

func hexadecimalDigit(_ byte: UInt8) -> UInt16? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt16(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt16(byte - UInt8(ascii: "a") + 10)
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt16(byte - UInt8(ascii: "A") + 10)
    default: nil
    }
}

/// Return where the JSON number ends that begins at a place, or nil where there is none.
func numberEnd(_ text: UnsafeBufferPointer<UInt8>, from begin: Int) -> Int? {
    func at(_ place: Int) -> UInt8? { place < text.count ? text[place] : nil }
    func afterDigits(_ from: Int) -> Int {
        var end = from
        while let byte = at(end), byte &- UInt8(ascii: "0") < 10 { end += 1 }
        return end
    }
    let first = at(begin) == UInt8(ascii: "-") ? begin + 1 : begin
    var end = afterDigits(first)
    if end == first || (at(first) == UInt8(ascii: "0") && end > first + 1) { return nil }
    if at(end) == UInt8(ascii: ".") {
        let fraction = end + 1
        end = afterDigits(fraction)
        if end == fraction { return nil }
    }
    if let letter = at(end), letter | 0x20 == UInt8(ascii: "e") {
        let sign = at(end + 1)
        let exponent = sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") ? end + 2 : end + 1
        end = afterDigits(exponent)
        if end == exponent { return nil }
    }
    return end
}
