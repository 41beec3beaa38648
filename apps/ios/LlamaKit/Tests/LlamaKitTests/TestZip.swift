import Foundation

@testable import LlamaKit

/// A zip written by hand, so that every field of it can be wrong.
struct TestZip {
    struct Entry {
        var name: [UInt8]
        var content: [UInt8]
        var method = 0
        var flags = 0
        var mode = 0o100644
    }

    var entries: [Entry]
    private let isLong: Bool
    private let comment: String
    private let from: Int64

    /// - Parameters:
    ///   - isLong: whether lengths and places stand in zip64's fields
    ///   - comment: text at its end
    ///   - from: number of bytes that stand before it in the file
    ///   - nameBytes: name of one more entry
    init(
        _ files: TestFiles, isLong: Bool = false, comment: String = "", from: Int64 = 0,
        nameBytes: [UInt8]? = nil
    ) {
        entries = files.map { Entry(name: Array($0.path.utf8), content: $0.content) }
        if let nameBytes { entries.append(Entry(name: nameBytes, content: [])) }
        self.isLong = isLong
        self.comment = comment
        self.from = from
    }

    var bytes: [UInt8] {
        var out = [UInt8]()
        var table = [UInt8]()
        for entry in entries {
            let at = from + Int64(out.count)
            out += header(entry) + entry.content
            table += tableEntry(entry, at: at)
        }
        return out + table + end(tableAt: from + Int64(out.count), tableBytes: table.count)
    }

    private func header(_ entry: Entry) -> [UInt8] {
        // As `pack` does, to begin the content at a page.
        let padding = fields([(0xd935, 2), (6, 2), (4096, 2), (0, 4)])
        var out = fields([(0x0403_4b50, 4)])
        out += common(entry, extraBytes: padding.count, length: entry.content.count)
        out += entry.name
        out += padding
        return out
    }

    private func common(_ entry: Entry, extraBytes: Int, length: Int) -> [UInt8] {
        let sum = Int(crc32(entry.content))
        return fields([
            (isLong ? 45 : 20, 2), (entry.flags, 2), (entry.method, 2), (0, 2), (0x21, 2), (sum, 4),
            (length, 4), (length, 4), (entry.name.count, 2), (extraBytes, 2),
        ])
    }

    private func tableEntry(_ entry: Entry, at: Int64) -> [UInt8] {
        let count = entry.content.count
        let long = fields([(9, 2), (2, 2), (0, 2), (1, 2), (24, 2), (count, 8), (count, 8), (Int(at), 8)])
        let extra = isLong ? long : []
        var out = fields([(0x0201_4b50, 4), (0x0314, 2)])
        out += common(entry, extraBytes: extra.count, length: isLong ? Self.high : count)
        out += fields([(0, 2), (0, 2), (0, 2), (entry.mode << 16, 4), (isLong ? Self.high : Int(at), 4)])
        out += entry.name
        out += extra
        return out
    }

    private func end(tableAt: Int64, tableBytes: Int) -> [UInt8] {
        let (count, at) = (entries.count, Int(tableAt))
        var out = [UInt8]()
        if isLong {
            out += fields([(0x0606_4b50, 4), (44, 8), (45, 2), (45, 2), (0, 8)])
            out += fields([(count, 8), (count, 8), (tableBytes, 8), (at, 8)])
            out += fields([(0x0706_4b50, 4), (0, 4), (at + tableBytes, 8), (1, 4)])
        }
        let short = isLong ? 0xffff : count
        out += fields([(0x0605_4b50, 4), (0, 4), (short, 2), (short, 2)])
        out += fields([(isLong ? Self.high : tableBytes, 4), (isLong ? Self.high : at, 4)])
        out += fields([(comment.utf8.count, 2)])
        out += Array(comment.utf8)
        return out
    }

    private static let high = 0xffff_ffff

    /// Return numbers with their counts of bytes, the lowest byte first.
    private func fields(_ numbers: [(value: Int, count: Int)]) -> [UInt8] {
        numbers.flatMap { number in
            (0..<number.count).map { UInt8(truncatingIfNeeded: number.value >> (8 * $0)) }
        }
    }
}
