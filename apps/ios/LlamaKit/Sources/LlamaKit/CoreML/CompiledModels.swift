import Foundation

/// The compiled models of an app: each package is compiled once, into a folder named by its manifest's hash.
///
/// It knows folders and names; what compiles is handed in. Core ML compiles into a temporary place, and
/// what is there may be gone at the next start, so it is moved.
public struct CompiledModels: Sendable {
    /// Folder that holds the compiled models, one folder each.
    public let folder: URL

    /// - Parameter folder: a folder of this app's own; it is made when the first model is compiled
    public init(folder: URL) {
        self.folder = folder
    }

    /// The folder that an app uses where it wants no other: `CompiledModels` in Application Support.
    public static var inApplicationSupport: CompiledModels {
        let base =
            FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask).first
            ?? FileManager.default.temporaryDirectory
        return CompiledModels(folder: base.appendingPathComponent("CompiledModels", isDirectory: true))
    }

    /// Return where the compiled model of a bundle lies, or will lie.
    ///
    /// The manifest holds the hash of every file of the package, so its own hash stands for them all.
    ///
    /// - Parameters:
    ///   - manifestSha256: SHA-256 of manifest.json in hex
    ///   - system: version of the system; another one may want it compiled again
    public func place(manifestSha256: String, system: String) -> URL {
        let sound = Set("abcdefghijklmnopqrstuvwxyz0123456789".utf8)
        let version = String(
            decoding: system.lowercased().utf8.map { sound.contains($0) ? $0 : 0x2D }, as: UTF8.self)
        let name = "\(manifestSha256)-\(version)"
        return folder.appendingPathComponent(name + ".mlmodelc", isDirectory: true)
    }

    /// Return the compiled model of a package, and compile it where it is not there yet.
    ///
    /// Models of the same bundle for other systems are deleted: they are as large as the model.
    ///
    /// - Parameters:
    ///   - package: path of the `.mlpackage`
    ///   - manifestSha256: SHA-256 of the bundle's manifest.json in hex
    ///   - system: version of the system
    ///   - compile: compiles a package and returns where the result lies
    /// - Returns: path of the compiled model
    /// - Throws: ``EngineError`` if there is no room; whatever `compile` throws
    public func model(
        of package: URL, manifestSha256: String, system: String,
        compile: @Sendable (URL) async throws -> URL
    ) async throws -> URL {
        let place = place(manifestSha256: manifestSha256, system: system)
        let files = FileManager.default
        if files.fileExists(atPath: place.path) { return place }
        let compiled = try await compile(package)
        defer { try? files.removeItem(at: compiled) }
        do {
            try files.createDirectory(at: folder, withIntermediateDirectories: true)
            try forget(manifestSha256: manifestSha256)
            try files.moveItem(at: compiled, to: place)
        } catch {
            // Two that compile at once make the same; the first one stays.
            if files.fileExists(atPath: place.path) { return place }
            throw EngineError(
                "the compiled model cannot be kept in \(folder.path): \(error.localizedDescription)",
                hint: "Free some space on this device, and load the model again.", kind: .storage)
        }
        return place
    }

    /// Delete what was compiled of a bundle.
    public func forget(manifestSha256: String) throws {
        let files = FileManager.default
        guard files.fileExists(atPath: folder.path) else { return }
        for name in try files.contentsOfDirectory(atPath: folder.path)
        where name.hasPrefix(manifestSha256 + "-") {
            try files.removeItem(at: folder.appendingPathComponent(name))
        }
    }
}
