import Foundation

/// A folder whose manifest was read and whose files are there in their full length.
///
/// Files that the manifest does not list do no harm, because no path of it leads to one.
public struct ModelBundle: Sendable {
    private static let copyAgain = "The bundle was changed or is incomplete: copy it again."

    /// Where the bundle lies.
    public let folder: URL

    /// What it says of itself.
    public let manifest: Manifest

    /// The file or the folder that the runtime loads.
    public var artifact: URL { folder.at(manifest.artifact) }

    /// Read and check a bundle, all but the hashes.
    ///
    /// - Throws: ``BundleError`` if the folder holds no manifest, a damaged or a newer one, or files are
    ///   missing or have another length; all are named
    public static func open(_ folder: URL) throws -> ModelBundle {
        let name = folder.lastPathComponent
        let file = folder.at(manifestName)
        if lengthOfFile(file) == nil {
            throw BundleError(
                "\(name) holds no \(manifestName), so it is no bundle",
                hint: "Choose the folder that the export wrote, such as 3.2-1B-Instruct/coreml.",
                kind: .noBundle)
        }
        let content: [UInt8]
        do {
            content = try readManifest(FileReader(file), where: "\(name)/\(manifestName)")
        } catch let error as FileFault {
            throw BundleError("\(name)/\(manifestName) cannot be read: \(error)", hint: copyAgain)
        }
        let manifest = try Manifest.parse(content, where: "\(name)/\(manifestName)")
        let faults = manifest.files.compactMap { entry in
            lengthFault(folder.at(entry.path), entry).map { "\(entry.path) \($0)" }
        }
        if !faults.isEmpty {
            throw BundleError(
                "\(name): \(faults.joined(separator: "; "))", hint: copyAgain, kind: .incomplete)
        }
        return ModelBundle(folder: folder, manifest: manifest)
    }

    /// Read every listed file and compare it with the manifest.
    ///
    /// - Parameter onBytes: told the number of bytes read since its last call; false ends the check
    /// - Returns: whether the check came to its end
    /// - Throws: ``BundleError`` if files are changed or unreadable; all are named
    public func checkHashes(onBytes: (Int) -> Bool) throws -> Bool {
        var faults = [String]()
        for entry in manifest.files {
            let file = folder.at(entry.path)
            do {
                if let fault = Self.lengthFault(file, entry) {
                    faults.append("\(entry.path) \(fault)")
                    continue
                }
                guard let found = try sha256(of: file, onBytes: onBytes) else { return false }
                if found != entry.sha256 {
                    faults.append("\(entry.path) has other bytes than the manifest says")
                }
            } catch let error as FileFault {
                faults.append("\(entry.path) cannot be read: \(error)")
            }
        }
        if !faults.isEmpty {
            let message = "\(folder.lastPathComponent): \(faults.joined(separator: "; "))"
            throw BundleError(message, hint: Self.copyAgain, kind: .wrongBytes)
        }
        return true
    }

    /// Read the bundle's golden data, whose hash is compared first.
    ///
    /// - Returns: the data; nil: the manifest lists none
    /// - Throws: ``BundleError`` if the file is changed, or not what this app reads
    public func readGolden() throws -> Golden? {
        guard let entry = manifest.files.first(where: { sameBytes($0.path, goldenName) }) else { return nil }
        let file = folder.at(goldenName)
        let name = "\(folder.lastPathComponent): \(goldenName)"
        if let fault = Self.lengthFault(file, entry) {
            throw BundleError("\(name) \(fault)", hint: Self.copyAgain)
        }
        do {
            guard let content = try FileReader(file).readAll(most: Golden.mostBytes) else {
                throw BundleError("\(name) has more than \(Golden.mostBytes) bytes", hint: Self.copyAgain)
            }
            if Sha256.hex(of: content) != entry.sha256 {
                throw BundleError("\(name) has other bytes than the manifest says", hint: Self.copyAgain)
            }
            return try Golden.parse(content)
        } catch let fault as FileFault {
            throw BundleError("\(goldenName) cannot be read: \(fault)", hint: Self.copyAgain)
        }
    }

    private static func lengthFault(_ file: URL, _ entry: FileEntry) -> String? {
        guard let length = lengthOfFile(file) else { return "is missing" }
        if length == entry.sizeBytes { return nil }
        return "has \(length) bytes, and the manifest says \(entry.sizeBytes)"
    }
}

/// Read a manifest's bytes, no more than one can have.
///
/// - Throws: ``BundleError`` if there are more; ``FileFault`` if it cannot be read
func readManifest(_ reader: FileReader, where place: String) throws -> [UInt8] {
    guard let content = try reader.readAll(most: mostManifestBytes) else {
        throw BundleError("\(place) is larger than \(mostManifestBytes) bytes", hint: Manifest.damagedHint)
    }
    return content
}
