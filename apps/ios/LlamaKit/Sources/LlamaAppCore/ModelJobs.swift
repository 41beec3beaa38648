import Foundation
import LlamaKit
import Observation
import Synchronization

private let tellEverySeconds = 0.2

/// What is being fetched, and how far it is.
public struct ModelJob: Sendable, Equatable {
    public let name: String
    public internal(set) var progress: DownloadProgress?
}

/// Brings models onto the device: one at a time, whatever screen is shown.
@MainActor
@Observable
public final class ModelJobs {
    /// What is being fetched; nil: nothing.
    public private(set) var job: ModelJob?

    /// Why the last one failed; nil: it did not, or it was read.
    public private(set) var error: (any AppError)?

    /// Number of jobs that ended: a list is then read again.
    public private(set) var ended = 0

    @ObservationIgnored private let library: ModelLibrary
    @ObservationIgnored private let settings: AppSettings
    @ObservationIgnored private let tokens: any TokenStore
    @ObservationIgnored private let downloader: Downloader
    @ObservationIgnored private let work: FileWork
    @ObservationIgnored private var stop = Stop()

    public init(
        library: ModelLibrary, settings: AppSettings, tokens: any TokenStore, downloader: Downloader,
        log: AppLog
    ) {
        self.library = library
        self.settings = settings
        self.tokens = tokens
        self.downloader = downloader
        work = FileWork("jobs", log: log)
    }

    /// Fetch what a user typed; false: something else is being fetched.
    ///
    /// - Throws: ``BadInput`` if it is no address
    @discardableResult
    public func download(_ place: DownloadPlace) throws -> Bool {
        let address = try place.address(tokens)
        let name = try place.folderName(address, in: library)
        if job != nil { return false }
        if let host = hostOf(address), let token = address.token { tokens.keep(token, for: host) }
        return download(address, name)
    }

    /// Go on with a download that did not end; false: nobody remembers where it came from, or another runs.
    @discardableResult
    public func goOn(_ name: String) -> Bool {
        guard let base = settings.downloadAddress(name) else { return false }
        let address = BundleAddress(base: base)
        let token = hostOf(address).flatMap { tokens.token(for: $0) }
        return download(BundleAddress(base: base, token: token), name)
    }

    /// Delete what a download left.
    public func discard(_ name: String) async {
        if job?.name == name { return }
        settings.keepDownloadAddress(name, nil)
        let downloader = downloader
        do {
            try await work.run { try downloader.discard(name) }
        } catch {
            self.error = inWords(error)
        }
    }

    /// Copy a bundle that the user chose: a folder, or a zip; false: something else is being fetched.
    @discardableResult
    public func importBundle(_ source: URL) -> Bool {
        let isZip = source.pathExtension.lowercased() == "zip"
        let shown = isZip ? source.deletingPathExtension().lastPathComponent : source.lastPathComponent
        let library = library
        return begin(library.freeName(shown)) { stop, tell in
            try reading(source) {
                let name = library.freeName(shown)
                let goesOn: (DownloadProgress) -> Bool = { progress in
                    tell(progress)
                    return !stop.isRequested
                }
                let bundles = BundleImport(models: library.own)
                if isZip { return try bundles.fromZip(source, name: name, onProgress: goesOn) }
                return try bundles.fromFolder(source, name: name, onProgress: goesOn)
            }
        }
    }

    /// Return the names of downloads that did not end.
    public func unfinished() async -> [String] {
        let downloader = downloader
        return (try? await FileWork("unfinished", log: work.log).run { downloader.unfinished() }) ?? []
    }

    /// End what is being fetched; a download can go on later.
    public func stopJob() { stop.request() }

    /// Hear that the error was read.
    public func dismiss() { error = nil }

    private func download(_ address: BundleAddress, _ name: String) -> Bool {
        let downloader = downloader
        let isBegun = begin(name) { stop, tell in
            try downloader.fetch(address, name: name, isStopped: { stop.isRequested }, onProgress: tell)
        }
        if isBegun { settings.keepDownloadAddress(name, address.base) }
        return isBegun
    }

    private func begin(
        _ name: String,
        _ fetch: @escaping @Sendable (Stop, @escaping @Sendable (DownloadProgress) -> Void) throws ->
            ModelBundle
    ) -> Bool {
        if job != nil { return false }
        let stop = Stop()
        self.stop = stop
        error = nil
        job = ModelJob(name: name)
        let models = library.own
        let pace = Pace(tellEverySeconds)
        let tell: @Sendable (DownloadProgress) -> Void = { progress in
            if pace.isTime() { Task { @MainActor [weak self] in self?.show(progress, of: name) } }
        }
        work.begin(
            {
                try FileManager.default.createDirectory(at: models, withIntermediateDirectories: true)
                return try fetch(stop, tell)
            }, onEnd: { [weak self] result in self?.end(name, result.fault) })
        return true
    }

    private func show(_ progress: DownloadProgress, of name: String) {
        if job?.name == name { job?.progress = progress }
    }

    private func end(_ name: String, _ fault: (any AppError)?) {
        job = nil
        ended += 1
        if fault == nil { settings.keepDownloadAddress(name, nil) }
        error = fault is Stopped ? nil : fault
    }
}

/// Read what the user chose outside of the app, for as long as the system lends it.
private func reading<Value>(_ place: URL, _ work: () throws -> Value) throws -> Value {
    #if canImport(Darwin)
        let isLent = place.startAccessingSecurityScopedResource()
        defer { if isLent { place.stopAccessingSecurityScopedResource() } }
    #endif
    return try work()
}

/// Says when enough time has passed to tell something again.
private final class Pace: Sendable {
    private let everySeconds: Double
    private let toldAt = Mutex(Date.distantPast)

    init(_ everySeconds: Double) {
        self.everySeconds = everySeconds
    }

    func isTime() -> Bool {
        toldAt.withLock { toldAt in
            let now = Date()
            if now.timeIntervalSince(toldAt) < everySeconds { return false }
            toldAt = now
            return true
        }
    }
}
