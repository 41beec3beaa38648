import Foundation
import LlamaKit
import Observation

/// What is being done with the model, and how far it is; `total` 0: not known yet.
public struct RunningReport: Sendable, Equatable {
    public let isVerifying: Bool
    public internal(set) var done = 0
    public internal(set) var total = 0
}

/// What came of verifying or measuring a model.
public enum ReportResult: Sendable {
    /// Whether this device computes what the exporter's machine computed.
    case verified(GoldenVerdict)

    /// How fast it is.
    case measured(BenchResult)

    /// The bundle holds nothing to compare with.
    case noGolden

    /// The user stopped it, or the app left the screen.
    case stopped

    case failed(any AppError)
}

/// A result and the file that tells others of it.
public struct Report: Sendable {
    /// Name of the model's folder.
    public let model: String

    public let result: ReportResult

    /// File with the report as JSON; nil: there is none.
    public let file: URL?
}

/// Verifies and measures the loaded model.
@MainActor
@Observable
public final class Reports {
    /// What is being done; nil: nothing.
    public private(set) var running: RunningReport?

    /// What came of it last; nil: nothing yet.
    public private(set) var report: Report?

    @ObservationIgnored private let host: ModelHost
    @ObservationIgnored private let device: any Device
    @ObservationIgnored private let folder: URL

    /// - Parameters:
    ///   - host: has the model
    ///   - device: says what it is
    ///   - folder: where reports are written for others to take
    public init(host: ModelHost, device: any Device, folder: URL) {
        self.host = host
        self.device = device
        self.folder = folder
    }

    /// Compare what this device computes with the bundle's golden data; false: no model is ready.
    @discardableResult
    public func verify() async -> Bool {
        guard let (session, model, stop) = host.take() else { return false }
        begin(RunningReport(isVerifying: true))
        defer { host.giveBack() }
        let runtime = host.engines.runtime(of: model.bundle.manifest.target)
        let facts = device.facts
        let tell = teller()
        do {
            guard let golden = try model.bundle.readGolden() else {
                end(model, .noGolden)
                return true
            }
            let manifest = try ModelBundle.manifestSha256(model.bundle.folder)
            let measured = try await session.use { cache in
                try golden.run(cache, stop: stop, onProgress: tell)
            }
            guard let measured else {
                end(model, .stopped)
                return true
            }
            let json = golden.report(
                measured, device: facts, runtime: runtime, manifestSha256: manifest)
            end(model, .verified(golden.judge(measured)), json, "verify")
        } catch {
            end(model, .failed(inWords(error)))
        }
        return true
    }

    /// Measure how fast the model is, loading included; false: no model is ready.
    @discardableResult
    public func measure(isQuick: Bool) async -> Bool {
        guard let model = host.state.loaded, host.state.isReady else { return false }
        begin(RunningReport(isVerifying: false))
        let readings = Readings(device)
        let tell = teller()
        let contextTokens = model.contextTokens
        let found = await host.workAlone { bundle, open, stop in
            let plan = try BenchPlan.fitting(contextTokens, quick: isQuick)
            let bench = Bench(plan, host: readings, ordinaryTokens: bundle.manifest.vocabSize)
            return (plan, try bench.measure(open: open, stop: stop, onProgress: tell))
        }
        switch found {
        case .done((let plan, let result?)):
            let json = result.report(
                plan, bundle: described(model), device: benchDevice(),
                threads: BenchThreads(count: nil, chosenBy: "runtime"))
            end(model, .measured(result), json, "bench")
        case .done: end(model, .stopped)
        case .failed(let error): end(model, .failed(error))
        case nil:
            running = nil
            return false
        }
        return true
    }

    /// End a measurement: times across a stay in the background mean nothing.
    func leaveScreen() {
        if let running, !running.isVerifying { host.stop() }
    }

    private func begin(_ next: RunningReport) {
        running = next
        report = nil
    }

    private func end(
        _ model: LoadedModel, _ result: ReportResult, _ json: JsonObject? = nil, _ kind: String = ""
    ) {
        running = nil
        if case .failed(let error) = result { host.note("report on \(model.name)", error) }
        var file: URL?
        if let json {
            let place = folder.appendingPathComponent("\(model.name)-\(kind).json")
            do {
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
                try Data(Json.object(json).writeBytes()).write(to: place)
                file = place
            } catch {
                report = Report(model: model.name, result: .failed(inWords(error)), file: nil)
                return
            }
        }
        report = Report(model: model.name, result: result, file: file)
    }

    private func teller() -> @Sendable (Int, Int) -> Void {
        { [weak self] done, total in
            Task { @MainActor in self?.show(done, total) }
        }
    }

    private func show(_ done: Int, _ total: Int) {
        running?.done = done
        running?.total = total
    }

    private func described(_ model: LoadedModel) -> BenchBundle {
        let manifest = model.bundle.manifest
        return BenchBundle(
            folder: model.name, model: manifest.modelName, target: manifest.target, recipe: manifest.recipe,
            groupSize: nil, sizeBytes: manifest.sizeBytes)
    }

    private func benchDevice() -> BenchDevice {
        BenchDevice(
            name: device.name, cores: ProcessInfo.processInfo.activeProcessorCount,
            memoryBytes: device.totalBytes)
    }
}

private struct Readings: BenchHost, Sendable {
    let device: any Device

    init(_ device: any Device) {
        self.device = device
    }

    func clockNanos() -> UInt64 { monotonicNanoseconds() }
    func residentBytes() -> Int64? { device.appMemoryBytes() }
    func peakResidentBytes() -> Int64? { nil }
    func thermal() -> String? { device.thermal() }
}
