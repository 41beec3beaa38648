import Foundation

/// What to do about something that is no bundle.
let chooseBundle = "Choose a zip or a folder that llama-export wrote."

private let theZip = "the zip"
private let copyAgain = "Copy it again from where it was made."
private let mostLevels = 4
private let freeSpace = "Delete other models or files, and try again."
private let unpackFirst = "Unpack it in Files first, by a tap on it, and choose the folder that comes out."

/// How far a download or an import is: bytes of all files.
public struct DownloadProgress: Sendable, Equatable {
    /// Number of bytes that are there.
    public let doneBytes: Int64

    /// Number of bytes of all files.
    public let sizeBytes: Int64

    /// Make it of its numbers.
    public init(doneBytes: Int64, sizeBytes: Int64) {
        self.doneBytes = doneBytes
        self.sizeBytes = sizeBytes
    }
}

/// Copies bundles from elsewhere into the folder of models, where the runtimes can map them.
///
/// A bundle is copied and hashed in `NAME.import`, and gets its name when it is right; else nothing
/// is left of it.
public struct BundleImport: Sendable {
    private let models: URL
    private let freeBytes: @Sendable (URL) -> Int64

    /// - Parameters:
    ///   - models: folder that holds the bundles
    ///   - freeBytes: tells the free bytes of the storage that holds a folder
    public init(models: URL, freeBytes: @escaping @Sendable (URL) -> Int64 = freeBytesOfStorage) {
        self.models = models
        self.freeBytes = freeBytes
    }

    /// Copy a bundle from a folder.
    ///
    /// - Parameters:
    ///   - folder: folder that the user chose, which this process may read
    ///   - name: name that the bundle gets
    ///   - onProgress: told how far it is; false ends it
    /// - Throws: ``BundleError`` if it is no bundle, or incomplete, or a file is not what the manifest
    ///   says, or the storage is full, or a model of that name is there; ``BadInput`` if the name is none;
    ///   ``Stopped`` if `onProgress` ended it
    public func fromFolder(
        _ folder: URL, name: String, onProgress: @escaping (DownloadProgress) -> Bool
    ) throws -> ModelBundle {
        try staged(name) { staging in
            let source = folder.at(manifestName)
            if lengthOfFile(source) == nil { throw noBundle() }
            let content = try reading(manifestName) {
                try readManifest(FileReader(source), where: manifestName)
            }
            try fill(staging, manifest: content, onProgress) { entry, take in
                let file = folder.at(entry.path)
                guard let length = lengthOfFile(file) else {
                    throw BundleError("\(entry.path) is missing", hint: chooseBundle, kind: .incomplete)
                }
                try requireLength(entry, length)
                return try reading(entry.path) {
                    try FileReader(file).forEachPiece(most: entry.sizeBytes, take)
                }
            }
        }
    }

    /// Copy a bundle from a zip, in which it may lie in a folder.
    ///
    /// Only what the manifest lists is copied, and only from a zip without compression, as
    /// `llama-export pack` writes it.
    ///
    /// - Parameters:
    ///   - zip: file that this process may read
    ///   - name: name that the bundle gets
    ///   - onProgress: told how far it is; false ends it
    /// - Throws: as ``fromFolder(_:name:onProgress:)``, and ``BundleError`` if the zip is damaged or
    ///   compressed, or has a path out of the folder or a link
    public func fromZip(
        _ zip: URL, name: String, onProgress: @escaping (DownloadProgress) -> Bool
    ) throws -> ModelBundle {
        try staged(name) { staging in
            let archive = try reading(theZip) { try ZipArchive(zip) }
            for entry in archive.entries { try requireHarmless(entry) }
            let top = try topOf(archive)
            let manifest = try stored(archive, top + manifestName)
            try fill(staging, manifest: manifestContent(archive, manifest), onProgress) { entry, take in
                let found = try stored(archive, top + entry.path)
                try requireLength(entry, found.sizeBytes)
                return try reading(theZip) { try archive.read(found, take) }
            }
        }
    }

    /// Delete what imports left that were killed on their way.
    ///
    /// A download goes on where it ended and is kept; an import would begin anew.
    public func discardKilled() {
        for name in namesIn(models).compactMap({ withoutEnding($0, importEnding) }) {
            // What is being imported just now is refused, and stays.
            try? whileAlone(models, name) { deleteTree(models.at(name + importEnding)) }
        }
    }

    /// Copy the files of a manifest into a folder, and hash them on the way.
    ///
    /// - Parameter read: reads a listed file in pieces; returns whether it came to its end
    private func fill(
        _ staging: URL, manifest content: [UInt8], _ onProgress: @escaping (DownloadProgress) -> Bool,
        read: (FileEntry, @escaping (UnsafeRawBufferPointer) throws -> Bool) throws -> Bool
    ) throws {
        let manifest = try Manifest.parse(content)
        let sizeBytes = manifest.sizeBytes
        try requireSpace(sizeBytes, freeBytes: freeBytes(staging))
        try writeWhole(content, to: staging.at(manifestName))
        var done: Int64 = 0
        for entry in manifest.files {
            let file = staging.at(entry.path)
            try makeFolder(file.deletingLastPathComponent())
            let writer = try FileWriter(file)
            var digest = Sha256()
            let before = done
            let isWhole = try read(entry) { piece in
                try writer.write(piece)
                digest.update(piece)
                done += Int64(piece.count)
                return onProgress(DownloadProgress(doneBytes: done, sizeBytes: sizeBytes))
            }
            if !isWhole { throw Stopped() }
            try writer.finish()
            try requireLength(entry, done - before)
            if digest.hex() != entry.sha256 {
                throw BundleError(
                    "\(entry.path) has other bytes than the manifest says", hint: chooseBundle,
                    kind: .wrongBytes)
            }
        }
    }

    /// Read of what is imported, where a failure is the source's and not the storage's.
    private func reading<T>(_ what: String, _ work: () throws -> T) throws -> T {
        do {
            return try work()
        } catch let fault as FileFault where fault.isReading {
            throw BundleError("\(what) cannot be read: \(fault)", hint: copyAgain)
        }
    }

    private func requireLength(_ entry: FileEntry, _ length: Int64) throws {
        if length == entry.sizeBytes { return }
        let fault = length > entry.sizeBytes ? "more than" : "only \(length) of"
        throw BundleError(
            "\(entry.path) has \(fault) \(entry.sizeBytes) bytes", hint: chooseBundle, kind: .incomplete)
    }

    private func requireHarmless(_ entry: ZipEntry) throws {
        let path = entry.isFolder ? String(entry.name.dropLast()) : entry.name
        if let fault = sameBytes(path, manifestName) ? nil : pathFault(path) {
            throw BundleError("the zip holds '\(entry.name)', which \(fault)", hint: chooseBundle)
        }
        if entry.isLink {
            throw BundleError("the zip holds '\(entry.name)', which is a link", hint: chooseBundle)
        }
    }

    /// Return the folder in a zip that holds the manifest, with its slash; empty: the zip itself.
    private func topOf(_ archive: ZipArchive) throws -> String {
        let tops = archive.entries.filter { !$0.isFolder }.map { pathParts($0.name) }
            .filter { $0.count <= mostLevels + 1 && $0.last.map { sameBytes($0, manifestName) } ?? false }
            .map { $0.dropLast() }
        let first = tops.min { left, right in
            left.lexicographicallyPrecedes(right) { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        }
        guard let first else { throw noBundle() }
        return first.map { $0 + "/" }.joined()
    }

    private func stored(_ archive: ZipArchive, _ name: String) throws -> ZipEntry {
        guard let entry = archive[name] else {
            throw BundleError("\(name) is missing", hint: chooseBundle, kind: .incomplete)
        }
        if entry.isEncrypted {
            throw BundleError("the zip wants a password for '\(name)'", hint: unpackFirst, kind: .other)
        }
        if !entry.isStored {
            throw BundleError(
                "the zip is compressed, which this app does not read", hint: unpackFirst, kind: .other)
        }
        return entry
    }

    private func manifestContent(_ archive: ZipArchive, _ entry: ZipEntry) throws -> [UInt8] {
        if entry.sizeBytes > mostManifestBytes {
            throw BundleError("\(manifestName) is larger than \(mostManifestBytes) bytes", hint: chooseBundle)
        }
        var content = [UInt8]()
        _ = try reading(theZip) {
            try archive.read(entry) { piece in
                content.append(contentsOf: piece)
                return true
            }
        }
        // The manifest has every other file's hash, and nothing has its own.
        if crc32(content) != entry.crc32 { throw ZipArchive.damaged("\(entry.name) has other bytes") }
        return content
    }

    private func staged(_ name: String, fill: (URL) throws -> Void) throws -> ModelBundle {
        let target = try placeOfNew(models, name)
        return try whileAlone(models, name) {
            let staging = models.at(name + importEnding)
            deleteTree(staging)
            defer { deleteTree(staging) }
            try makeFolder(staging)
            try leaveOutOfBackups(staging)
            try fill(staging)
            _ = try ModelBundle.open(staging)
            try renamePlace(staging, to: target)
            return try ModelBundle.open(target)
        }
    }

    private func noBundle() -> BundleError {
        BundleError("it holds no \(manifestName), so it is no bundle", hint: chooseBundle, kind: .noBundle)
    }
}
