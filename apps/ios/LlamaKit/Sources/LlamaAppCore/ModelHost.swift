import Foundation
import LlamaKit
import Observation

private let progressBytes: Int64 = 32 << 20

/// Owns the one model that is in memory.
@MainActor
@Observable
public final class ModelHost {
    /// What it is at.
    public private(set) var state = HostState.idle(freed: nil)

    @ObservationIgnored public let engines: any Engines
    @ObservationIgnored private let foreground: Foreground
    @ObservationIgnored private let log: AppLog
    @ObservationIgnored private let files: FileWork
    @ObservationIgnored private var session: ChatSession?
    @ObservationIgnored private(set) var stopping = Stop()

    /// - Parameters:
    ///   - engines: what opens a model
    ///   - foreground: says when the app may compute
    ///   - log: where failures go
    public init(engines: any Engines, foreground: Foreground, log: AppLog) {
        self.engines = engines
        self.foreground = foreground
        self.log = log
        files = FileWork("bundle", log: log)
    }

    /// Put a model into memory in place of the one that is there.
    ///
    /// - Parameters:
    ///   - folder: folder of its bundle
    ///   - contextTokens: largest number of positions that are wanted
    ///   - checksHashes: whether every file is compared with the manifest first
    /// - Returns: whether it is there; false also where something else is being done
    @discardableResult
    public func load(_ folder: URL, contextTokens: Int, checksHashes: Bool) async -> Bool {
        if state.isWorking { return false }
        let name = folder.lastPathComponent
        let stop = begin(.loading(name: name, .opening))
        do {
            await closeSession()
            let opened = try await read(folder, contextTokens: contextTokens)
            if checksHashes { try await checkHashes(opened.bundle, stop) }
            try await open(opened, stop)
            state = .ready(opened.loaded)
            return true
        } catch is Stopped {
            state = .idle(freed: nil)
        } catch {
            log.write("load \(name)", error)
            state = .failed(name: name, inWords(error))
        }
        return false
    }

    /// Take the model out of memory where it rests.
    ///
    /// - Parameter freed: because the system needs its memory
    public func unload(freed: Bool = false) async {
        switch state {
        case .ready(let model): state = .idle(freed: freed ? model.name : nil)
        case .failed where !freed: state = .idle(freed: nil)
        default: return
        }
        await closeSession()
    }

    /// End what runs as soon as it can be done.
    public func stop() {
        stopping.request()
        session?.stop()
        foreground.giveUp()
    }

    /// Keep what went wrong for the log.
    func note(_ what: String, _ error: any AppError) { log.write(what, error) }

    // MARK: Work with the model

    /// Take the model for a piece of work, after which it is given back; nil: none is ready.
    func take() -> (session: ChatSession, model: LoadedModel, stop: Stop)? {
        guard case .ready(let model) = state, let session else { return nil }
        let stop = begin(.busy(model))
        return (session, model, stop)
    }

    /// Give the model back.
    func giveBack() {
        if case .busy(let model) = state { state = .ready(model) }
        foreground.workEnded()
    }

    /// Work with a bundle while the model itself is out of memory; it is loaded again at the end.
    ///
    /// - Parameter work: gets the bundle, what loads it, and the wish to stop; never on the main actor
    /// - Returns: what came of it; nil: no model is ready, and nothing was begun
    func workAlone<Value: Sendable>(
        _ work: @escaping @Sendable (ModelBundle, EngineOpener, Stop) throws -> Value
    ) async -> Outcome<Value>? {
        guard let (_, model, stop) = take() else { return nil }
        defer { foreground.workEnded() }
        await closeSession()
        var result: Outcome<Value>
        do {
            let bundle = model.bundle
            let opener = try await engines.prepare(bundle, contextTokens: model.contextTokens)
            result = .done(try await files.run { try work(bundle, opener, stop) })
        } catch {
            result = .failed(inWords(error))
        }
        do {
            let opened = try await read(model.bundle.folder, contextTokens: model.contextTokens)
            // The wish to stop was for the work.
            try await open(opened, begin(.busy(model)))
            state = .ready(opened.loaded)
        } catch {
            log.write("load \(model.name)", error)
            state = error is Stopped ? .idle(freed: nil) : .failed(name: model.name, inWords(error))
        }
        return result
    }

    // MARK: Loading

    private func begin(_ next: HostState) -> Stop {
        stopping = Stop()
        state = next
        return stopping
    }

    private func read(_ folder: URL, contextTokens: Int) async throws -> OpenedBundle {
        let engines = engines
        return try await files.run {
            try OpenedBundle(folder, engines: engines, contextTokens: contextTokens)
        }
    }

    private func checkHashes(_ bundle: ModelBundle, _ stop: Stop) async throws {
        let size = bundle.manifest.sizeBytes
        let name = bundle.folder.lastPathComponent
        let tell: @Sendable (Int64) -> Void = { [weak self] done in
            Task { @MainActor in self?.tell(name, .checking(doneBytes: done, sizeBytes: size)) }
        }
        let isWhole = try await files.run {
            var done: Int64 = 0
            var told: Int64 = 0
            return try bundle.checkHashes { count in
                done += Int64(count)
                if done - told >= progressBytes {
                    told = done
                    tell(done)
                }
                return !stop.isRequested
            }
        }
        if !isWhole { throw Stopped() }
    }

    /// Show how far a load is, where it is still at it.
    private func tell(_ name: String, _ step: LoadStep) {
        if case .loading(let current, let last) = state, current == name, last != .waiting {
            state = .loading(name: name, step)
        }
    }

    private func open(_ opened: OpenedBundle, _ stop: Stop) async throws {
        try await waitUntilActive(stop)
        let opener = try await engines.prepare(opened.bundle, contextTokens: opened.contextTokens)
        try await waitUntilActive(stop)
        let gate = foreground.gate
        session = try await ChatSession(opened.chatModel) { PausingModel(try opener(), gate) }
    }

    private func waitUntilActive(_ stop: Stop) async throws {
        if case .loading(let name, _) = state {
            if !foreground.isActive { state = .loading(name: name, .waiting) }
            await foreground.wait()
            if !stop.isRequested { state = .loading(name: name, .opening) }
        } else {
            await foreground.wait()
        }
        if stop.isRequested { throw Stopped() }
    }

    private func closeSession() async {
        let old = session
        session = nil
        await old?.close()
    }
}
