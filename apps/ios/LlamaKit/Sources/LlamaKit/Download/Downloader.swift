import Foundation

private let freeSpace = "Delete other models or files, and try again: it goes on from where it ended."
private let deleteFirst = "Delete it first, or give the new one another name."

/// Fetches bundles, so that one is whole or not there, and a run goes on where another ended.
///
/// The manifest comes first and has every length and hash. Files gather in `NAME.download`, which
/// gets the bundle's own name when all of them are right. A fetch blocks its thread: run it on one
/// of your own, not on the main thread or in a task.
public struct Downloader: Sendable {
    private let models: URL
    private let http: any Http
    private let freeBytes: @Sendable (URL) -> Int64

    /// - Parameters:
    ///   - models: folder that holds the bundles
    ///   - http: way to the network
    ///   - freeBytes: tells the free bytes of the storage that holds a folder
    public init(
        models: URL, http: any Http = UrlHttp(),
        freeBytes: @escaping @Sendable (URL) -> Int64 = freeBytesOfStorage
    ) {
        self.models = models
        self.http = http
        self.freeBytes = freeBytes
    }

    /// Fetch a bundle, or go on fetching it.
    ///
    /// - Parameters:
    ///   - address: where it comes from
    ///   - name: name of its folder
    ///   - isStopped: asked often, from the same thread; true ends the download
    ///   - onProgress: told how far it is
    /// - Throws: ``BundleError`` if what is there is no bundle, or other than its manifest says, or a
    ///   bundle of that name is there already, or is just being fetched; ``NetworkError`` if the server
    ///   does not give it now; ``BadInput`` if the name is none; ``Stopped`` if the user asked, what is
    ///   there being kept
    public func fetch(
        _ address: BundleAddress, name: String, isStopped: @escaping () -> Bool,
        onProgress: @escaping (DownloadProgress) -> Void
    ) throws -> ModelBundle {
        let target = try placeOfNew(models, name)
        return try whileAlone(models, name) {
            let staging = models.at(name + downloadEnding)
            try makeFolder(staging)
            try leaveOutOfBackups(staging)
            let manifest = try begin(address, staging, isStopped)
            try requireSpace(missingBytes(staging, manifest), freeBytes: freeBytes(staging))
            try fetchFiles(address, manifest, into: staging, isStopped: isStopped, onProgress: onProgress)
            _ = try ModelBundle.open(staging)
            do {
                try renamePlace(staging, to: target)
            } catch is FileFault {
                let message = "\(staging.lastPathComponent) cannot be renamed to \(name)"
                throw BundleError(message, hint: deleteFirst, kind: .storage)
            }
            return try ModelBundle.open(target)
        }
    }

    /// Delete what an unfinished download left.
    ///
    /// - Throws: ``BadInput`` if the name is none
    public func discard(_ name: String) throws {
        try requireFolderName(name)
        deleteTree(models.at(name + downloadEnding))
        deleteTree(models.at(name + lockEnding))
    }

    /// Return the names of downloads that did not end, and can go on.
    public func unfinished() -> [String] {
        namesIn(models).compactMap { withoutEnding($0, downloadEnding) }
    }

    private func fetchFiles(
        _ address: BundleAddress, _ manifest: Manifest, into staging: URL,
        isStopped: @escaping () -> Bool, onProgress: @escaping (DownloadProgress) -> Void
    ) throws {
        let sizeBytes = manifest.sizeBytes
        var done: Int64 = 0
        for entry in manifest.files.sorted(by: { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }) {
            let file = staging.at(entry.path)
            try makeFolder(file.deletingLastPathComponent())
            let before = done
            try FileDownload(
                http: http, url: address.of(entry.path), token: address.token, target: file, entry: entry,
                isStopped: isStopped,
                onBytes: { onProgress(DownloadProgress(doneBytes: before + $0, sizeBytes: sizeBytes)) }
            ).run()
            done += entry.sizeBytes
        }
    }

    /// Fetch the manifest; when it is another one than the last run's, begin anew.
    private func begin(
        _ address: BundleAddress, _ staging: URL, _ isStopped: () -> Bool
    ) throws -> Manifest {
        let content = try fetchManifest(address, isStopped)
        let manifest = try Manifest.parse(content)
        let file = staging.at(manifestName)
        if (try? FileReader(file).readAll(most: mostManifestBytes)) != content {
            for name in namesIn(staging) { deleteTree(staging.at(name)) }
            do {
                try writeWhole(content, to: file)
            } catch is FileFault {
                throw BundleError("\(manifestName) cannot be written", hint: freeSpace, kind: .storage)
            }
        }
        return manifest
    }

    private func fetchManifest(_ address: BundleAddress, _ isStopped: () -> Bool) throws -> [UInt8] {
        let answer = try http.get(
            address.of(manifestName), token: address.token, from: 0, isStopped: isStopped)
        defer { answer.close() }
        if answer.status != 200 {
            let isWeb = answer.status != notHttpStatus
            let found = isWeb ? "the server answered \(answer.status)" : "what answers is no web server"
            throw NetworkError(
                "\(manifestName): \(found)",
                hint:
                    "Give the address of a folder that holds a \(manifestName); a private one needs a token.",
                kind: [401, 403].contains(answer.status) ? .tokenWanted : .server)
        }
        do {
            return try answer.readAtMost(mostManifestBytes, isStopped: isStopped)
        } catch let fault as BodyFault {
            throw NetworkError("\(manifestName) broke off: \(fault)", hint: "Try again.", kind: .network)
        }
    }

    private func missingBytes(_ staging: URL, _ manifest: Manifest) -> Int64 {
        manifest.files.reduce(0) { sum, entry in
            let file = staging.at(entry.path)
            let part = URL(fileURLWithPath: file.path + partEnding, isDirectory: false)
            let there = lengthOfFile(file) ?? lengthOfFile(part) ?? 0
            return sum + max(0, entry.sizeBytes - there)
        }
    }
}
