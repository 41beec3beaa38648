import Foundation

/// A file in a zip, as the table at the zip's end has it.
struct ZipEntry: Sendable {
    /// Path, which may lead anywhere.
    let name: String

    /// Whether it is a folder, which has no content.
    let isFolder: Bool

    /// Whether it is a link to another place.
    let isLink: Bool

    /// Whether its bytes stand in the zip as they are.
    let isStored: Bool

    /// Whether it can be read with a password only.
    let isEncrypted: Bool

    /// Length of its content.
    let sizeBytes: Int64

    /// CRC-32 of its content.
    let crc32: UInt32

    /// Where its own header begins, from the zip's beginning.
    let headerAt: Int64
}

/// Reads the table of a zip, and the entries that are stored as they are.
///
/// It knows zip64, and neither compression nor zips in several parts: `llama-export pack` writes none.
struct ZipArchive {
    private static let entryHeader: UInt32 = 0x0403_4b50
    private static let entryHeaderBytes = 30

    /// Entries in the table's order.
    let entries: [ZipEntry]

    private let places: [Utf8Key: Int]
    private let reader: FileReader
    private let tableAt: Int64

    /// Read the table of a zip.
    ///
    /// - Throws: ``BundleError`` if it is no zip, a damaged one, or one of too many files;
    ///   ``FileFault`` if it cannot be read
    init(_ file: URL) throws {
        reader = try FileReader(file)
        let place = try ZipTablePlace(reader)
        tableAt = place.at
        let table = try reader.bytes(at: place.at, count: place.byteCount)
        let found = try zipEntries(table, count: place.count)
        entries = found
        places = Dictionary(uniqueKeysWithValues: found.indices.map { (Utf8Key(found[$0].name), $0) })
    }

    /// Return the entry of a path, or nil where there is none.
    subscript(name: String) -> ZipEntry? { places[Utf8Key(name)].map { entries[$0] } }

    /// Read the content of a stored entry in pieces.
    ///
    /// - Parameter take: called with each piece; false ends it
    /// - Returns: whether it came to its end
    /// - Throws: ``BundleError`` if the zip is damaged there; ``FileFault`` if it cannot be read
    func read(_ entry: ZipEntry, _ take: (UnsafeRawBufferPointer) throws -> Bool) throws -> Bool {
        let header = LittleEndian(try reader.bytes(at: entry.headerAt, count: Self.entryHeaderBytes))
        let nameBytes = Int(try header.uint16(26))
        let extraBytes = Int(try header.uint16(28))
        let nameAt = entry.headerAt + Int64(Self.entryHeaderBytes)
        let name = try reader.bytes(at: nameAt, count: nameBytes)
        let sameMethod = try header.uint16(8) == 0
        guard try header.uint32(0) == Self.entryHeader, sameMethod, name.elementsEqual(entry.name.utf8) else {
            throw ZipArchive.damaged("the table names '\(entry.name)' where it does not lie")
        }
        let contentAt = nameAt + Int64(nameBytes + extraBytes)
        // What lies in the table, or behind it, is no content.
        if contentAt > tableAt || entry.sizeBytes > tableAt - contentAt {
            throw ZipArchive.damaged("'\(entry.name)' is cut off")
        }
        try reader.seek(to: contentAt)
        return try reader.forEachPiece(most: entry.sizeBytes, take)
    }

    static func damaged(_ how: String) -> BundleError {
        BundleError("the zip is damaged: \(how)", hint: "Copy it again.")
    }
}

/// Whole numbers in bytes, the lowest byte first.
struct LittleEndian {
    private let bytes: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }
    init(_ bytes: ArraySlice<UInt8>) { self.bytes = bytes }

    func uint16(_ at: Int) throws -> UInt16 { UInt16(truncatingIfNeeded: try number(at, 2)) }
    func uint32(_ at: Int) throws -> UInt32 { UInt32(truncatingIfNeeded: try number(at, 4)) }

    /// Return a number of 64 bits, of which the highest may not be set: no length needs it.
    func int64(_ at: Int) throws -> Int64 {
        guard let value = Int64(exactly: try number(at, 8)) else {
            throw ZipArchive.damaged("a length is absurd")
        }
        return value
    }

    private func number(_ at: Int, _ count: Int) throws -> UInt64 {
        guard at >= 0, at + count <= bytes.count else { throw ZipArchive.damaged("it is cut off") }
        let start = bytes.startIndex + at
        return bytes[start..<start + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}

extension FileReader {
    /// Read bytes at a position.
    ///
    /// - Throws: ``BundleError`` if the file ends before; ``FileFault`` if it cannot be read
    func bytes(at offset: Int64, count: Int) throws -> [UInt8] {
        guard offset >= 0, count >= 0, offset <= byteCount, Int64(count) <= byteCount - offset else {
            throw ZipArchive.damaged("it is cut off")
        }
        try seek(to: offset)
        var found = [UInt8]()
        found.reserveCapacity(count)
        _ = try forEachPiece(most: Int64(count)) { piece in
            found.append(contentsOf: piece)
            return true
        }
        if found.count != count { throw ZipArchive.damaged("it is cut off") }
        return found
    }
}
