import Testing

@testable import LlamaKit

/// A phone whose clock moves with the model: a millisecond a token, and more the first time.
private final class Phone: BenchHost {
    var now: UInt64 = 0
    private var hot = 0

    func clockNanos() -> UInt64 { now }

    func residentBytes() -> Int64? { 1000 + Int64(now) }

    func peakResidentBytes() -> Int64? { nil }

    func thermal() -> String? {
        hot += 1
        return hot == 1 ? "nominal" : "fair"
    }
}

private final class Timed: RowModel {
    private let phone: Phone
    private var isWarm = false

    init(_ phone: Phone) {
        self.phone = phone
        super.init(vocabSize: 64, maxContext: 600)
    }

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        phone.now += 1_000_000 * UInt64(ids.count) * (isWarm ? 1 : 3)
        isWarm = true
        return try super.step(ids, at: position)
    }
}

private final class Broken: RowModel {
    override func fill(_ held: Int) {
        super.fill(held)
        buffer[3] = .nan
    }
}

/// A model whose head was pruned to two tokens.
private final class Pruned: RowModel {
    private(set) var read = [Int32]()

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        read += ids
        _ = try super.step(ids, at: position)
        (buffer[0], buffer[1]) = (0, 1)
        return UnsafeBufferPointer(rebasing: UnsafeBufferPointer(buffer)[..<2])
    }
}

@Suite("Speed on this phone")
struct BenchTests {
    private let plan = BenchPlan(promptLengths: [8, 300], contexts: [16], decodeTokens: 4, samples: 2)

    private func measured(_ onProgress: @escaping (Int, Int) -> Void = { _, _ in }) throws -> BenchResult? {
        let phone = Phone()
        let bench = Bench(plan, host: phone, ordinaryTokens: 60)
        let open = {
            phone.now += 2_000_000_000
            return Timed(phone)
        }
        return try bench.measure(open: open, onProgress: onProgress)
    }

    @Test func whatIsMeasuredFitsAsInPython() throws {
        try Vectors("bench.json").each("plans") { entry in
            let plan = try entry.fields("plan")
            let found = try BenchPlan.fitting(entry.int("max_context"), quick: entry.bool("quick"))
            #expect(try plan.ints("prompt_lengths").map { Int($0) } == found.promptLengths)
            #expect(try plan.ints("contexts").map { Int($0) } == found.contexts)
            #expect(try plan.int("decode_tokens") == found.decodeTokens)
            #expect(try plan.int("repeat") == found.samples)
        }
        let error = try refusal { _ = try BenchPlan.fitting(16) }
        #expect(error.message.contains("expected more than 16 positions to measure, found 16"))
    }

    @Test func samplesAreSummarisedAsInPython() throws {
        try Vectors("bench.json").each("spreads") { entry in
            let samples = try entry.list("samples").compactMap { $0.asNumber?.double() }
            let spread = try entry.fields("spread")
            let expected = Spread(
                median: try spread.double("median"), least: try spread.double("least"),
                most: try spread.double("most"))
            #expect(Spread(of: samples) == expected)
        }
    }

    @Test func theFiguresAreThoseOfTheClock() throws {
        var seen = [Int]()
        let found = try #require(
            try measured { done, all in
                seen.append(done)
                #expect(all == 9)
            })
        #expect(seen == Array(1...9))
        #expect(found.loadS == 2)
        #expect(abs(found.firstCallS - 8 * 0.003) < 1e-12)
        #expect(found.prefill.map(\.tokens) == [8, 300])
        #expect(abs(found.prefill[1].firstTokenS.median - 0.3) < 1e-12)
        #expect(abs(found.prefill[1].tokensPerS.most - 1000) < 1e-6)
        #expect(found.decode.map { abs($0.tokensPerS.median - 1000) < 1e-6 } == [true])
        #expect(found.residentBeforeBytes == 1000)
        #expect(found.residentBytes == 2_000_001_000)
        #expect([found.thermalBefore, found.thermalAfter] == ["nominal", "fair"])
    }

    @Test func aStopEndsItWithoutAFigureAndNothingHoldsTheModel() throws {
        let stop = Stop()
        weak var held: RowModel?
        let open = {
            let model = RowModel(vocabSize: 64, maxContext: 600)
            held = model
            return model
        }
        let found = try Bench(plan, host: Phone(), ordinaryTokens: 60).measure(open: open, stop: stop) {
            done, _ in
            if done == 3 { stop.request() }
        }
        #expect(found == nil)
        #expect(held == nil)
    }

    @Test func whatComputesNoNumbersHasNoSpeed() throws {
        let bench = Bench(plan, host: Phone(), ordinaryTokens: 60)
        let error = try refusal { _ = try bench.measure(open: { Broken(vocabSize: 64, maxContext: 600) }) }
        #expect(error is EngineError)
        #expect(error.message == "the logits are not finite numbers")
    }

    @Test func aPrunedHeadsPlacesAreItsTokens() throws {
        let short = BenchPlan(promptLengths: [2], contexts: [2], decodeTokens: 2, samples: 1)
        let model = Pruned(vocabSize: 64, maxContext: 600)
        let bench = Bench(short, host: Phone(), ordinaryTokens: 40, headTokens: [50, 51])
        #expect(try bench.measure(open: { model }) != nil)
        #expect(Set(model.read.filter { $0 >= 40 }) == [51])
    }

    @Test func theReportHasTheKeysOfTheDesktopsAndTwoMore() throws {
        let found = try #require(try measured())
        let bundle = BenchBundle(
            folder: "demo", model: "demo", target: "coreml", recipe: nil, groupSize: nil, sizeBytes: 5)
        let device = BenchDevice(name: "a phone", cores: 8, memoryBytes: nil)
        let threads = BenchThreads(count: 2, chosenBy: "the app")
        let report = found.report(plan, bundle: bundle, device: device, threads: threads, notes: ["a note"])
        let expected =
            try Vectors("bench.json").texts("keys") + ["device", "thermal.before", "thermal.after"]
        #expect(paths(.object(report), "") == expected)
        #expect(try parseJson(Json.object(report).writeBytes(), where: "report") == .object(report))
        let fields = JsonFields(report, where: "report")
        #expect(try fields.required("peak_resident_bytes") == .null)
        #expect(try fields.fields("machine").int("cores") == 8)
        #expect(try fields.fields("settings").ints("prompt_lengths") == [8, 300])
        #expect(try fields.fields("thermal").text("after") == "fair")
    }

    private func paths(_ value: Json, _ path: String) -> [String] {
        switch value {
        case .object(let object):
            object.entries.flatMap { key, each in paths(each, path.isEmpty ? key : "\(path).\(key)") }
        case .array(let items) where items.first?.asObject != nil: paths(items[0], path + "[]")
        default: [path]
        }
    }
}
