import Foundation
import LlamaKit
import Observation

private let mostLogCharacters = 100_000

/// Where the app keeps what it keeps.
public struct AppPlaces: Sendable {
    /// Folder of the app's own.
    public let own: URL

    /// Folder that Finder and the Files app reach.
    public let shared: URL

    /// Bundle that the app itself brings; nil: none.
    public let demo: URL?

    public init(own: URL, shared: URL, demo: URL?) {
        self.own = own
        self.shared = shared
        self.demo = demo
    }
}

/// The app's parts, made once; they outlive the screens.
@MainActor
@Observable
public final class AppParts {
    /// Whether the first look at the storage is done.
    public private(set) var hasBegun = false

    /// Name of the model with which the app ended while it was loaded; nil: none, or it was read.
    public private(set) var endedLoading: String?

    /// A model whose memory is not there, and what to ask.
    public private(set) var question: (bundle: ModelBundle, memory: MemoryQuestion)?

    @ObservationIgnored public let foreground: Foreground
    @ObservationIgnored public let host: ModelHost
    @ObservationIgnored public let session: Session
    @ObservationIgnored public let jobs: ModelJobs
    @ObservationIgnored public let models: ModelList
    @ObservationIgnored public let conversations: ConversationList
    @ObservationIgnored public let reports: Reports
    @ObservationIgnored public let settings: AppSettings
    @ObservationIgnored public let log: AppLog
    @ObservationIgnored private let library: ModelLibrary
    @ObservationIgnored private let device: any Device
    @ObservationIgnored private let files: FileWork
    @ObservationIgnored private let demo: URL?

    public init(
        _ places: AppPlaces, engines: any Engines, device: any Device, tokens: any TokenStore,
        stored: UserDefaults, http: any Http = UrlHttp()
    ) {
        log = AppLog(file: places.own.appendingPathComponent("log.txt"))
        settings = AppSettings(stored)
        files = FileWork("files", log: log)
        library = ModelLibrary(own: places.own.appendingPathComponent("Models"), shared: places.shared)
        foreground = Foreground()
        host = ModelHost(engines: engines, foreground: foreground, log: log)
        let store = ConversationStore(folder: places.own.appendingPathComponent("Conversations"))
        session = Session(store: store, settings: settings, host: host, device: device, files: files)
        jobs = ModelJobs(
            library: library, settings: settings, tokens: tokens,
            downloader: Downloader(models: library.own, http: http), log: log)
        models = ModelList(library: library, jobs: jobs, host: host, files: files)
        conversations = ConversationList(store: store, session: session, files: files)
        reports = Reports(
            host: host, device: device, folder: places.own.appendingPathComponent("Reports"))
        demo = places.demo
        self.device = device
    }

    /// Take up what was there: the conversation, and the last model where it is safe to load it.
    public func begin() async {
        if hasBegun { return }
        endedLoading = settings.loading.isEmpty ? nil : settings.loading
        settings.loading = ""
        if !settings.conversation.isEmpty { await session.open(settings.conversation) }
        let library = library
        let demo = demo
        let name = settings.model
        var found: ModelBundle?
        do {
            found = try await files.run {
                let installed = try library.installDemo(demo)
                return name.isEmpty ? installed : library.find(name) ?? installed
            }
        } catch {
            session.fail(inWords(error))
        }
        hasBegun = true
        guard let found, endedLoading == nil, memoryQuestion(found.manifest) == nil else { return }
        await load(found)
    }

    /// Hear that the app came or went.
    public func change(to phase: AppPhase) {
        foreground.change(to: phase, isComputing: host.state.isBusy)
        if phase == .active { return }
        session.save()
        reports.leaveScreen()
    }

    /// Hear that the system needs memory: a model that rests is given up.
    public func memoryWarning() async {
        log.write("memory warning: \(device.appMemoryBytes() ?? -1) bytes taken")
        await host.unload(freed: true)
    }

    // MARK: Loading

    /// Name of the model that was in memory last; empty: none.
    public var lastModel: String { settings.model }

    /// Load a model, or ask first where its memory is not there; false: the model is busy.
    @discardableResult
    public func askToLoad(_ bundle: ModelBundle) async -> Bool {
        if host.state.isWorking { return false }
        if let memory = memoryQuestion(bundle.manifest) {
            question = (bundle, memory)
        } else {
            await load(bundle)
        }
        return true
    }

    /// Load the model that was in memory last.
    public func loadLast() async {
        let library = library
        let name = settings.model
        guard let bundle = try? await files.run({ library.find(name) }) else {
            return session.fail(
                BadInput("\(name) is no longer on this device", hint: "Choose another model."))
        }
        await askToLoad(bundle)
    }

    /// Answer the question about memory, which is gone at once.
    ///
    /// - Parameter contextTokens: a context to load with all the same; nil: it is not loaded
    /// - Returns: the load
    @discardableResult
    public func answer(contextTokens: Int?) -> Task<Void, Never> {
        let asked = question
        question = nil
        return Task {
            if let asked, let contextTokens { await load(asked.bundle, contextTokens: contextTokens) }
        }
    }

    /// Hear that the end of the last load was read.
    public func dismissEnd() { endedLoading = nil }

    private func load(_ bundle: ModelBundle, contextTokens: Int? = nil) async {
        if host.state.isWorking { return }
        let name = bundle.folder.lastPathComponent
        settings.loading = name
        endedLoading = nil
        let isThere = await host.load(
            bundle.folder, contextTokens: contextTokens ?? settings.contextTokens,
            checksHashes: library.isUnchecked(bundle.folder))
        settings.loading = ""
        settings.model = isThere ? name : ""
    }

    private func memoryQuestion(_ manifest: Manifest) -> MemoryQuestion? {
        MemoryQuestion(
            manifest, contextTokens: settings.contextTokens, availableBytes: device.availableBytes())
    }

    // MARK: The log

    /// Return what a person who mends the app must know.
    public func report() -> String {
        """
        \(device.name)
        memory: \(device.totalBytes) bytes, available: \(device.availableBytes()) bytes
        model: \(host.state.loaded?.name ?? "none")

        \(log.read().suffix(mostLogCharacters))
        """
    }
}
