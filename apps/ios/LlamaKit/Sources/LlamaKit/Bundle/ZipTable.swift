/// Most files that a zip may hold; a Core ML bundle has some ten.
let mostZipEntries = 10_000

private let mostTableBytes = 32 * 1024 * 1024
private let endRecord: UInt32 = 0x0605_4b50
private let endRecordBytes = 22
private let mostCommentBytes = 0xffff
private let locator: UInt32 = 0x0706_4b50
private let locatorBytes = 20
private let longEndRecord: UInt32 = 0x0606_4b50
private let longEndRecordBytes = 56
private let tableHeader: UInt32 = 0x0201_4b50
private let tableHeaderBytes = 46
private let inLongField: UInt32 = 0xffff_ffff
private let longField: UInt16 = 1
private let unix: UInt8 = 3

/// Where the table of a zip lies.
struct ZipTablePlace {
    let at: Int64
    let byteCount: Int
    let count: Int

    /// Find the table from the zip's end.
    ///
    /// - Throws: ``BundleError`` if it is no zip, a damaged one, or one of too many files
    init(_ reader: FileReader) throws {
        let tailBytes = Int(min(reader.byteCount, Int64(endRecordBytes + mostCommentBytes)))
        let tail = try reader.bytes(at: reader.byteCount - Int64(tailBytes), count: tailBytes)
        guard let end = Self.endRecordPlace(tail) else {
            throw BundleError("the file is no zip, or an empty one", hint: chooseBundle, kind: .noBundle)
        }
        let endAt = reader.byteCount - Int64(tailBytes - end)
        let record = LittleEndian(tail[end...])
        guard try record.uint16(4) == 0, try record.uint16(6) == 0 else {
            throw ZipArchive.damaged("it is one of several parts")
        }
        var count = Int64(try record.uint16(10))
        var byteCount = Int64(try record.uint32(12))
        var at = Int64(try record.uint32(16))
        if let long = try Self.longRecord(reader, before: endAt) {
            (count, byteCount, at) = (try long.int64(32), try long.int64(40), try long.int64(48))
        }
        if count == 0 {
            throw BundleError("the file is no zip, or an empty one", hint: chooseBundle, kind: .noBundle)
        }
        if count > mostZipEntries || byteCount > mostTableBytes {
            throw BundleError("the zip has more than \(mostZipEntries) files", hint: chooseBundle)
        }
        if at > endAt || byteCount > endAt - at { throw ZipArchive.damaged("its table is cut off") }
        self.at = at
        self.byteCount = Int(byteCount)
        self.count = Int(count)
    }

    /// Return where the record at the very end begins; a comment may follow, which ends the file.
    private static func endRecordPlace(_ tail: [UInt8]) -> Int? {
        guard tail.count >= endRecordBytes else { return nil }
        for at in stride(from: tail.count - endRecordBytes, through: 0, by: -1) {
            let record = LittleEndian(tail[at...])
            guard let found = try? record.uint32(0), found == endRecord,
                let comment = try? record.uint16(20)
            else { continue }
            if at + endRecordBytes + Int(comment) == tail.count { return at }
        }
        return nil
    }

    /// Return the record of a zip64, which is found through its locator, or nil where there is none.
    private static func longRecord(_ reader: FileReader, before endAt: Int64) throws -> LittleEndian? {
        guard endAt >= Int64(locatorBytes) else { return nil }
        let found = LittleEndian(try reader.bytes(at: endAt - Int64(locatorBytes), count: locatorBytes))
        guard try found.uint32(0) == locator else { return nil }
        let record = LittleEndian(try reader.bytes(at: try found.int64(8), count: longEndRecordBytes))
        guard try record.uint32(0) == longEndRecord else { throw ZipArchive.damaged("its end is damaged") }
        return record
    }
}

/// Read the table of a zip.
///
/// - Parameters:
///   - table: the table's bytes
///   - count: number of its entries
/// - Throws: ``BundleError`` if it is damaged, or names a file in letters that are no UTF-8
func zipEntries(_ table: [UInt8], count: Int) throws -> [ZipEntry] {
    var entries = [ZipEntry]()
    var seen = Set<Utf8Key>()
    var at = 0
    for _ in 0..<count {
        let header = LittleEndian(table[at...])
        guard try header.uint32(0) == tableHeader else { throw ZipArchive.damaged("its table is damaged") }
        let (nameBytes, extraBytes) = (Int(try header.uint16(28)), Int(try header.uint16(30)))
        let next = at + tableHeaderBytes + nameBytes + extraBytes + Int(try header.uint16(32))
        guard next <= table.count else { throw ZipArchive.damaged("its table is cut off") }
        let nameAt = at + tableHeaderBytes
        guard let name = String(validating: table[nameAt..<nameAt + nameBytes], as: UTF8.self) else {
            throw ZipArchive.damaged("a name is no UTF-8")
        }
        if !seen.insert(Utf8Key(name)).inserted { throw ZipArchive.damaged("it holds '\(name)' twice") }
        let extraAt = nameAt + nameBytes
        entries.append(try entry(header, name: name, extra: table[extraAt..<extraAt + extraBytes]))
        at = next
    }
    return entries
}

private func entry(_ header: LittleEndian, name: String, extra: ArraySlice<UInt8>) throws -> ZipEntry {
    let long = try LongNumbers(extra)
    let sizeBytes = try long.next(instead: header.uint32(24))
    let packedBytes = try long.next(instead: header.uint32(20))
    let headerAt = try long.next(instead: header.uint32(42))
    let isStored = try header.uint16(10) == 0
    if isStored && sizeBytes != packedBytes { throw ZipArchive.damaged("'\(name)' has two lengths") }
    let mode = try header.uint32(38) >> 16
    let isUnix = try header.uint16(4) >> 8 == UInt16(unix)
    return ZipEntry(
        name: name,
        isFolder: name.utf8.last == UInt8(ascii: "/"),
        isLink: isUnix && mode & 0o170000 == 0o120000,
        isStored: isStored,
        isEncrypted: try header.uint16(8) & 1 != 0,
        sizeBytes: sizeBytes,
        crc32: try header.uint32(16),
        headerAt: headerAt)
}

/// The numbers of an entry that are too large for its header, in the order that zip64 has them.
private final class LongNumbers {
    private let field: LittleEndian?
    private var at = 0

    init(_ extra: ArraySlice<UInt8>) throws {
        var rest = extra
        while rest.count >= 4 {
            let header = LittleEndian(rest)
            let byteCount = Int(try header.uint16(2))
            guard byteCount <= rest.count - 4 else { break }
            if try header.uint16(0) == longField {
                field = LittleEndian(rest.dropFirst(4).prefix(byteCount))
                return
            }
            rest = rest.dropFirst(4 + byteCount)
        }
        field = nil
    }

    /// Return a number of the header, or the next one of the field where the header says so.
    func next(instead number: UInt32) throws -> Int64 {
        guard number == inLongField else { return Int64(number) }
        guard let field else { throw ZipArchive.damaged("a length is missing") }
        defer { at += 8 }
        return try field.int64(at)
    }
}
