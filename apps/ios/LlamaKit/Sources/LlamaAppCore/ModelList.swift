import Foundation
import LlamaKit
import Observation

/// The models on this device as a list shows them.
@MainActor
@Observable
public final class ModelList {
    /// Models, by name; nil: not read yet.
    public private(set) var entries: [ModelEntry]?

    /// Names of downloads that did not end.
    public private(set) var unfinished: [String] = []

    @ObservationIgnored private let library: ModelLibrary
    @ObservationIgnored private let jobs: ModelJobs
    @ObservationIgnored private let host: ModelHost
    @ObservationIgnored private let files: FileWork

    init(library: ModelLibrary, jobs: ModelJobs, host: ModelHost, files: FileWork) {
        self.library = library
        self.jobs = jobs
        self.host = host
        self.files = files
    }

    /// Look at the storage again.
    public func read() async {
        let library = library
        let found = try? await files.run { library.list() }
        unfinished = await jobs.unfinished()
        entries = found ?? entries
    }

    /// Delete a model, out of memory first; false: it is being used.
    ///
    /// - Throws: ``BadInput`` if the system does not let it go
    @discardableResult
    public func delete(_ entry: ModelEntry) async throws -> Bool {
        if host.uses(entry.name) {
            if host.state.isWorking { return false }
            await host.unload()
        }
        let library = library
        let engines = host.engines
        let folder = entry.folder
        try await files.run {
            engines.forget(folder)
            try library.delete(folder)
        }
        await read()
        return true
    }

    /// Delete what a download left.
    public func discard(_ name: String) async {
        await jobs.discard(name)
        await read()
    }
}

extension ModelHost {
    /// Whether a model is in memory, or comes there.
    func uses(_ name: String) -> Bool {
        if case .loading(name, _) = state { return true }
        return state.loaded?.name == name
    }
}
