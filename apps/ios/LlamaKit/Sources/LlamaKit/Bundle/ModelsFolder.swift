import Foundation

/// Bytes of storage that are left to the system and to the app itself.
let spareBytes: Int64 = 32 * 1024 * 1024

/// What is appended to a model's name while it is fetched, imported, or kept from a second fetcher.
let downloadEnding = ".download"
let importEnding = ".import"
let lockEnding = ".lock"
private let ownEndings = [downloadEnding, importEnding, lockEnding]

/// Refuse a name that is no name of one folder.
///
/// - Throws: ``BadInput`` if it is none
public func requireFolderName(_ name: String) throws {
    guard let fault = pathFault(name) ?? (pathParts(name).count > 1 ? "holds a slash" : nil) else { return }
    throw BadInput("the name '\(name)' \(fault)", hint: "Give a name of letters, digits, '-', '_' and '.'.")
}

/// Return whether a name in the folder of models is that of something unfinished, and no model's.
public func isUnfinished(_ name: String) -> Bool {
    let name = Array(name.lowercased().utf8)
    return ownEndings.contains { name.suffix($0.utf8.count).elementsEqual($0.utf8) }
}

/// Return the folder of a model that is about to come into `models`.
///
/// - Throws: ``BadInput`` if the name is none; ``BundleError`` if a model of that name is there
func placeOfNew(_ models: URL, _ name: String) throws -> URL {
    try requireFolderName(name)
    if isUnfinished(name) {
        throw BadInput(
            "the name '\(name)' ends like that of an unfinished download",
            hint: "Give a name without \(ownEndings.joined(separator: ", ")) at its end.")
    }
    let place = models.at(name)
    if isTaken(place) {
        throw BundleError(
            "a model named \(name) is there already",
            hint: "Delete it first, or give the new one another name.", kind: .nameTaken)
    }
    return place
}

/// Refuse what the storage has no room for.
///
/// - Throws: ``BundleError`` if it is too little
func requireSpace(_ missingBytes: Int64, freeBytes: Int64) throws {
    let needed = missingBytes + spareBytes
    if needed > freeBytes {
        throw BundleError(
            "the model needs \(needed) more bytes of storage, and \(freeBytes) are free",
            hint: "Delete other models or files, and try again.", kind: .storage)
    }
}

/// Return the free bytes of the storage that holds a folder; 0 where the system does not say.
///
/// iOS counts what it would purge for something that the user asked for.
@Sendable
public func freeBytesOfStorage(_ folder: URL) -> Int64 {
    #if canImport(Darwin)
        let key = URLResourceKey.volumeAvailableCapacityForImportantUsageKey
        if let found = try? folder.resourceValues(forKeys: [key]),
            let bytes = found.volumeAvailableCapacityForImportantUsage
        {
            return bytes
        }
    #endif
    let found = try? FileManager.default.attributesOfFileSystem(forPath: folder.path)
    return (found?[.systemFreeSize] as? NSNumber)?.int64Value ?? 0
}

/// Keep a folder out of backups: a model can be fetched again, and would fill the user's iCloud.
///
/// Does nothing where there are no such backups.
///
/// - Throws: ``BundleError`` if the system does not take it
func leaveOutOfBackups(_ folder: URL) throws {
    #if canImport(Darwin)
        var place = folder
        var values = URLResourceValues()
        values.isExcludedFromBackup = true
        do {
            try place.setResourceValues(values)
        } catch {
            throw BundleError(
                "\(folder.lastPathComponent) cannot be kept out of backups: \(error.localizedDescription)",
                hint: "Look whether the storage is full.", kind: .storage)
        }
    #endif
}
