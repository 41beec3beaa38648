import Foundation

/// Size of the pieces in which files are read.
let pieceBytes = 1 << 20

/// What the system has against an operation on a file, in its own words.
struct FileFault: Error, CustomStringConvertible {
    let code: Int32

    /// Whether a file could not be read; else one could not be written.
    let isReading: Bool

    var description: String { String(cString: strerror(code)) }

    /// Return what the last call of the system said.
    static func last(isReading: Bool = false) -> FileFault {
        FileFault(code: errno, isReading: isReading)
    }
}

/// A regular file that is read from its beginning, or from a position, in pieces.
final class FileReader {
    private let descriptor: Int32

    /// Length of the file when it was opened.
    let byteCount: Int64

    /// - Throws: ``FileFault`` if it cannot be opened, or is a folder, a pipe or a device
    init(_ file: URL) throws {
        // Opening a pipe would wait for its writer.
        let opened = open(file.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        if opened < 0 { throw FileFault.last(isReading: true) }
        guard let count = regularLength(opened) else {
            close(opened)
            throw FileFault(code: EISDIR, isReading: true)
        }
        descriptor = opened
        byteCount = count
    }

    deinit { close(descriptor) }

    /// Read bytes into a buffer; return how many there were, 0 at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            #if canImport(Darwin)
                let count = Darwin.read(descriptor, buffer.baseAddress, buffer.count)
            #else
                let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            #endif
            if count >= 0 { return count }
            if errno != EINTR { throw FileFault.last(isReading: true) }
        }
    }

    /// Go on reading from a position.
    func seek(to offset: Int64) throws {
        if lseek(descriptor, off_t(offset), SEEK_SET) < 0 { throw FileFault.last(isReading: true) }
    }

    /// Read what is left, in pieces.
    ///
    /// - Parameters:
    ///   - most: number of bytes to read at most; nil: to the end
    ///   - take: called with each piece; false ends it
    /// - Returns: whether it came to its end
    func forEachPiece(most: Int64? = nil, _ take: (UnsafeRawBufferPointer) throws -> Bool) throws -> Bool {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceBytes, alignment: 16)
        defer { buffer.deallocate() }
        var left = most ?? Int64.max
        while left > 0 {
            let wanted = Int(min(Int64(buffer.count), left))
            let count = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted]))
            if count == 0 { return true }
            left -= Int64(count)
            if try !take(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { return false }
        }
        return true
    }

    /// Read what is left into memory.
    ///
    /// - Returns: the bytes; nil: there are more than `most`
    func readAll(most: Int) throws -> [UInt8]? {
        var bytes = [UInt8]()
        _ = try forEachPiece(most: Int64(most) + 1) { piece in
            bytes.append(contentsOf: piece)
            return true
        }
        return bytes.count > most ? nil : bytes
    }
}

/// A file that is written from its beginning, or at its end.
final class FileWriter {
    private let descriptor: Int32
    private var isOpen = true

    /// - Parameter appends: whether what the file holds is kept, and gone on with
    init(_ file: URL, appends: Bool = false) throws {
        let place = appends ? O_APPEND : O_TRUNC
        descriptor = open(file.path, O_WRONLY | O_CREAT | O_CLOEXEC | place, 0o644)
        if descriptor < 0 { throw FileFault.last() }
    }

    deinit { if isOpen { close(descriptor) } }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            #if canImport(Darwin)
                let count = Darwin.write(descriptor, rest.baseAddress, rest.count)
            #else
                let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
            #endif
            if count >= 0 {
                done += count
            } else if errno != EINTR {
                throw FileFault.last()
            }
        }
    }

    /// Wait until the storage holds what was written, and close the file.
    func finish() throws {
        if fsync(descriptor) != 0 { throw FileFault.last() }
        isOpen = false
        if close(descriptor) != 0 { throw FileFault.last() }
    }
}

private func regularLength(_ descriptor: Int32) -> Int64? {
    var found = stat()
    guard fstat(descriptor, &found) == 0, found.st_mode & S_IFMT == S_IFREG else { return nil }
    return Int64(found.st_size)
}

/// Return the length of a regular file, or nil where there is none.
func lengthOfFile(_ file: URL) -> Int64? {
    var found = stat()
    guard stat(file.path, &found) == 0, found.st_mode & S_IFMT == S_IFREG else { return nil }
    return Int64(found.st_size)
}

/// Return whether there is a folder.
func isFolder(_ place: URL) -> Bool {
    var found = stat()
    return stat(place.path, &found) == 0 && found.st_mode & S_IFMT == S_IFDIR
}

/// Return whether there is anything: a file, a folder, or a link that leads nowhere.
func isTaken(_ place: URL) -> Bool {
    var found = stat()
    return lstat(place.path, &found) == 0
}

/// Give a file or a folder another name, in one step; a file of that name is replaced.
func renamePlace(_ from: URL, to place: URL) throws {
    if rename(from.path, place.path) != 0 { throw FileFault.last() }
}

/// Make a folder and those above it, where they are missing.
func makeFolder(_ folder: URL) throws {
    if isFolder(folder) { return }
    let above = folder.deletingLastPathComponent()
    if above.path != folder.path { try makeFolder(above) }
    if mkdir(folder.path, 0o755) != 0 && errno != EEXIST { throw FileFault.last() }
    if !isFolder(folder) { throw FileFault(code: ENOTDIR, isReading: false) }
}

/// Delete a file or a folder with all that is in it; nothing there is no fault.
func deleteTree(_ place: URL) {
    try? FileManager.default.removeItem(atPath: place.path)
}

/// Return the names in a folder in the order of their bytes; none where there is no folder.
func namesIn(_ folder: URL) -> [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
}

/// Keep bytes as a file, so that a kill leaves the old content or the new one.
func writeWhole(_ bytes: [UInt8], to file: URL) throws {
    let aside = URL(fileURLWithPath: file.path + partEnding, isDirectory: false)
    do {
        let writer = try FileWriter(aside)
        try bytes.withUnsafeBytes { try writer.write($0) }
        try writer.finish()
        try renamePlace(aside, to: file)
    } catch {
        unlink(aside.path)
        throw error
    }
}

/// Do a piece of work and free at once what Apple's frameworks would keep until the thread ends.
func drained<T>(_ work: () throws -> T) rethrows -> T {
    #if canImport(ObjectiveC)
        return try autoreleasepool(invoking: work)
    #else
        return try work()
    #endif
}

/// What is appended to the name of a file that is not whole yet.
let partEnding = ".part"

/// Hash a file in pieces of bounded memory.
///
/// - Parameters:
///   - file: file to read
///   - onBytes: told the number of bytes read since its last call; false ends it
/// - Returns: the SHA-256 in lower-case hex; nil: `onBytes` ended it
func sha256(of file: URL, onBytes: (Int) -> Bool) throws -> String? {
    var digest = Sha256()
    let isWhole = try FileReader(file).forEachPiece { piece in
        digest.update(piece)
        return onBytes(piece.count)
    }
    return isWhole ? digest.hex() : nil
}
