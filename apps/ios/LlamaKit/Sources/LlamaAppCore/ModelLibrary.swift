import Foundation
import LlamaKit

/// A folder of models.
public enum ModelEntry: Sendable, Identifiable {
    /// One whose manifest and lengths are right.
    case sound(ModelBundle)

    /// One that cannot be loaded.
    case damaged(URL, any AppError)

    /// Where it lies.
    public var folder: URL {
        switch self {
        case .sound(let bundle): bundle.folder
        case .damaged(let folder, _): folder
        }
    }

    /// Name of its folder.
    public var name: String { folder.lastPathComponent }

    public var id: String { folder.path }
}

/// The models on this device; it reads and writes files, so it belongs on no screen's actor.
public struct ModelLibrary: Sendable {
    /// Folder of the app's own, where imports and downloads go; what lies there was hashed.
    public let own: URL

    /// Folder that Finder and the Files app reach.
    public let shared: URL

    public init(own: URL, shared: URL) {
        self.own = own
        self.shared = shared
    }

    /// Return all models, by name.
    public func list() -> [ModelEntry] {
        let folders = foldersIn(own) + foldersIn(shared).filter(holdsManifest)
        return folders.sorted { ($0.lastPathComponent, $0.path) < ($1.lastPathComponent, $1.path) }
            .map { folder in
                do {
                    return .sound(try ModelBundle.open(folder))
                } catch {
                    return .damaged(folder, inWords(error))
                }
            }
    }

    /// Return the model of a name, or nil.
    public func find(_ name: String) -> ModelBundle? {
        for case .sound(let bundle) in list() where bundle.folder.lastPathComponent == name { return bundle }
        return nil
    }

    /// Return whether the app has not checked a model's bytes itself.
    public func isUnchecked(_ folder: URL) -> Bool {
        folder.deletingLastPathComponent().standardizedFileURL.path != own.standardizedFileURL.path
    }

    /// Delete a model.
    ///
    /// - Throws: ``BadInput`` if the system does not let it go
    public func delete(_ folder: URL) throws {
        do {
            try FileManager.default.removeItem(at: folder)
        } catch {
            throw BadInput(
                "\(folder.lastPathComponent) cannot be deleted: \(error.localizedDescription)",
                hint: "Try again.")
        }
    }

    /// Return a name like a wanted one that no model has yet.
    public func freeName(_ wanted: String) -> String {
        let kept = String(wanted.map { $0.isLetter || $0.isNumber || "-_.".contains($0) ? $0 : "-" })
        let known = kept.trimmingCharacters(in: CharacterSet(charactersIn: ".-"))
        let base = known.isEmpty ? "model" : isUnfinished(known) ? known + "-model" : known
        var name = base
        var count = 1
        while isTaken(name) {
            count += 1
            name = "\(base)-\(count)"
        }
        return name
    }

    /// Copy the bundle that the app itself brings, where it brings one and no model is there; what a killed
    /// import left is deleted first.
    ///
    /// - Parameter demo: folder of that bundle; nil: the app brings none
    /// - Returns: the model; nil: there is nothing to do
    public func installDemo(_ demo: URL?) throws -> ModelBundle? {
        BundleImport(models: own).discardKilled()
        guard let demo, holdsManifest(demo), list().isEmpty else { return nil }
        return try BundleImport(models: own).fromFolder(demo, name: "demo") { _ in true }
    }

    private func isTaken(_ name: String) -> Bool {
        FileManager.default.fileExists(atPath: own.appendingPathComponent(name).path)
    }

    private func holdsManifest(_ folder: URL) -> Bool {
        FileManager.default.fileExists(atPath: folder.appendingPathComponent("manifest.json").path)
    }

    private func foldersIn(_ place: URL) -> [URL] {
        let found = try? FileManager.default.contentsOfDirectory(
            at: place, includingPropertiesForKeys: [.isDirectoryKey], options: .skipsHiddenFiles)
        return (found ?? []).filter { folder in
            let isFolder = (try? folder.resourceValues(forKeys: [.isDirectoryKey]))?.isDirectory ?? false
            return isFolder && !isUnfinished(folder.lastPathComponent)
        }
    }
}
