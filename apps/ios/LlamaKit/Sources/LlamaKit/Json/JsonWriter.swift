extension Json {
    /// Return the value as JSON text without white space, which ``parseJson(_:where:)-(String,_)`` reads back
    /// as it was.
    public func write() -> String {
        String(decoding: writeBytes(), as: UTF8.self)
    }

    /// Return the UTF-8 bytes of ``write()``.
    public func writeBytes() -> [UInt8] {
        var out: [UInt8] = []
        append(to: &out)
        return out
    }

    private func append(to out: inout [UInt8]) {
        switch self {
        case .object(let object):
            out.append(UInt8(ascii: "{"))
            for (index, entry) in object.entries.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                appendQuoted(entry.key, to: &out)
                out.append(UInt8(ascii: ":"))
                entry.value.append(to: &out)
            }
            out.append(UInt8(ascii: "}"))
        case .array(let items):
            out.append(UInt8(ascii: "["))
            for (index, item) in items.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                item.append(to: &out)
            }
            out.append(UInt8(ascii: "]"))
        case .text(let text): appendQuoted(text, to: &out)
        case .number(let number): out += number.text.utf8
        case .bool(let bool): out += (bool ? "true" : "false").utf8
        case .null: out += "null".utf8
        }
    }
}

private func appendQuoted(_ text: String, to out: inout [UInt8]) {
    out.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): out += [UInt8(ascii: "\\"), byte]
        case UInt8(ascii: "\n"): out += "\\n".utf8
        case UInt8(ascii: "\r"): out += "\\r".utf8
        case UInt8(ascii: "\t"): out += "\\t".utf8
        case ..<0x20: out += "\\u00\(byte < 0x10 ? "0" : "")\(String(byte, radix: 16))".utf8
        default: out.append(byte)
        }
    }
    out.append(UInt8(ascii: "\""))
}
