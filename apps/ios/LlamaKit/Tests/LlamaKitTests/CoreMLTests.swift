import Foundation
import Testing

@testable import LlamaKit

let flexibleGraph = """
    {"max_context": 512, "kv_cache": "state", "all_logits": true, "functions": {},
     "inputs": [{"name": "inputIds", "dtype": "int32", "shape": [1, "sequence_length"]},
                {"name": "causalMask", "dtype": "float16", "shape": [1, 1, "mask_rows", "total_length"]}],
     "outputs": [{"name": "logits", "dtype": "float16", "shape": [1, "sequence_length", 4096]}],
     "states": [{"name": "keyCache", "dtype": "float16", "shape": [2, 1, 3, 512, 64]},
                {"name": "valueCache", "dtype": "float16", "shape": [2, 1, 3, 512, 64]}]}
    """

private func layout(_ graph: String = flexibleGraph) throws -> CoreMLLayout {
    try CoreMLLayout(graph: parseJson(graph, where: "graph").fields(where: "graph"))
}

@Suite("A Core ML package's signature")
struct CoreMLLayoutTests {
    @Test func ofAnyLength() throws {
        let found = try layout()
        #expect(found.form == .flexible)
        #expect(found.cacheShape(positions: 7) == [2, 1, 3, 7, 64])
        #expect(found.maxContext == 512 && found.vocabSize == 4096)
    }

    @Test func ofTwoFunctions() throws {
        let graph = flexibleGraph.replacingOccurrences(
            of: "\"functions\": {}", with: "\"functions\": {\"prefill\": 64, \"decode\": 1}")
        #expect(try layout(graph).form == .fixed(prefillTokens: 64))
    }

    @Test func whoseCachesGoInAndComeOut() throws {
        let graph = """
            {"max_context": 512, "kv_cache": "io",
             "inputs": [{"name": "inputIds", "shape": [1, "sequence_length"]},
                        {"name": "keyCache", "shape": [2, 1, 3, "past_length", 64]},
                        {"name": "valueCache", "shape": [2, 1, 3, "past_length", 64]}],
             "outputs": [{"name": "logits", "shape": [1, "sequence_length", 4096]}]}
            """
        #expect(try layout(graph).form == .io)
    }

    @Test(
        "what is no such package is refused, by its key",
        arguments: [
            ("keyCache\"", "key_cache\"", "keyCache and valueCache"),
            ("[2, 1, 3, 512, 64]},", "[2, 1, 3, 256, 64]},", "keyCache and valueCache"),
            ("[2, 1, 3, 512, 64]", "[2, 1, 3, 256, 64]", "keyCache and valueCache"),
            ("[2, 1, 3, 512, 64]", "[2, 1, 0, 512, 64]", "keyCache and valueCache"),
            ("[2, 1, 3, 512, 64]", "[4611686018427387904, 1, 3, 512, 64]", "keyCache and valueCache"),
            ("[2, 1, 3, 512, 64]", "[4096, 1, 4096, 512, 4096]", "keyCache and valueCache"),
            ("\"max_context\": 512", "\"max_context\": 0", "max_context"),
            ("4096]", "9223372036854775807]", "outputs"),
            ("\"functions\": {}", "\"functions\": {\"prefill\": 513, \"decode\": 1}", "functions"),
            ("\"logits\"", "\"scores\"", "outputs"),
            ("4096]", "0]", "outputs"),
            ("\"functions\": {}", "\"functions\": {\"prefill\": 64, \"decode\": 2}", "functions"),
            ("\"functions\": {}", "\"functions\": {\"prefill\": 64}", "decode"),
            ("\"kv_cache\": \"state\",", "", "kv_cache"),
        ])
    func refused(old: String, new: String, named: String) throws {
        let graph = flexibleGraph.replacingOccurrences(of: old, with: new)
        try #require(graph != flexibleGraph)
        #expect {
            _ = try layout(graph)
        } throws: { error in
            (error as? BundleError)?.message.contains(named) == true
        }
    }
}

@Suite("The calls of a Core ML package")
struct CoreMLCallTests {
    private func calls(_ count: Int, at position: Int, _ plan: CoreMLPlan) -> [CoreMLCall] {
        var rest = (0..<Int32(count)).map { $0 + 1 }[...]
        var made: [CoreMLCall] = []
        while !rest.isEmpty {
            made.append(plan.nextCall(rest, at: position + count - rest.count))
            rest = rest.dropFirst(made.last?.length ?? 0)
        }
        return made
    }

    @Test func ofAnyLengthTellThePositionByTheMask() {
        let made = calls(300, at: 5, CoreMLPlan(form: .flexible, maxContext: 512))
        #expect(made.map(\.length) == [128, 128, 44])
        #expect(made.map(\.maskColumns) == [133, 261, 305])
        #expect(made.map(\.logitsRows) == [128, 128, 44])
        #expect(made.flatMap(\.ids) == (1...300).map(Int32.init))
        #expect(made.allSatisfy { $0.function == nil })
    }

    @Test func ofTwoFunctionsArePaddedAndNeverLeaveTheCache() {
        let plan = CoreMLPlan(form: .fixed(prefillTokens: 64), maxContext: 200)
        let made = calls(100, at: 0, plan)
        #expect(made.map(\.function) == ["prefill", "prefill"])
        #expect(made.map(\.length) == [64, 36])
        #expect(made.allSatisfy { $0.ids.count == 64 && $0.logitsRows == 1 })
        #expect(made[1].ids.suffix(28).allSatisfy { $0 == 0 })
        #expect(calls(1, at: 0, plan).map(\.function) == ["decode"])
        // 64 more do not fit behind 150 of 200.
        #expect(calls(3, at: 150, plan).map(\.function) == ["decode", "decode", "decode"])
        #expect(calls(50, at: 100, plan).map(\.length) == [50])
    }
}

@Suite("The loop over a Core ML package")
struct CoreMLLoopTests {
    /// Remembers its calls; its logits are the number of positions.
    private final class Recorder: CoreMLRunner {
        var calls: [CoreMLCall] = []
        var count = 4096
        var onCall: () -> Void = {}
        let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: 4096)
        deinit { logits.deallocate() }

        func run(_ call: CoreMLCall) throws -> UnsafeBufferPointer<Float> {
            calls.append(call)
            onCall()
            logits.initialize(repeating: Float(call.position + call.length))
            return UnsafeBufferPointer(rebasing: UnsafeBufferPointer(logits)[..<count])
        }
    }

    @Test func readsAPromptInPiecesAndRewinds() throws {
        let recorder = Recorder()
        let loop = CoreMLLoop(layout: try layout(), maxContext: 400, runner: recorder)
        #expect(loop.maxContext == 400)
        let prompt = [Int32](repeating: 3, count: 130)
        #expect(try loop.step(prompt, at: 0)[0] == 130)
        #expect(recorder.calls.map(\.position) == [0, 128])
        #expect(try loop.step([7], at: 50)[0] == 51)
        #expect(throws: PromptError.self) { try loop.step([7], at: 52) }
        #expect(throws: PromptError.self) { try loop.step([4096], at: 0) }
        #expect(throws: PromptError.self) { try loop.step([Int32](repeating: 1, count: 401), at: 0) }
    }

    @Test func endsBetweenTwoCallsWhereItIsStopped() throws {
        let recorder = Recorder()
        let loop = CoreMLLoop(layout: try layout(), maxContext: 512, runner: recorder)
        let cache = try KeptCache(loop)
        let stop = Stop()
        #expect(throws: StepStopped.self) {
            recorder.onCall = { loop.interrupt?() }
            _ = try loop.step([Int32](repeating: 3, count: 300), at: 0)
        }
        #expect(recorder.calls.count == 1)
        recorder.onCall = { stop.request() }
        #expect(try cache.read([Int32](repeating: 3, count: 300), stop: stop) == nil)
        #expect(recorder.calls.count == 2)
        #expect(cache.position == 128)
        recorder.onCall = {}
        #expect(try cache.read([1])?[0] == 129)
    }

    @Test func refusesLogitsOfAnotherModel() throws {
        let recorder = Recorder()
        recorder.count = 5
        let loop = CoreMLLoop(layout: try layout(), maxContext: 512, runner: recorder)
        #expect(throws: BundleError.self) { try loop.step([1], at: 0) }
    }
}

@Suite("float16 numbers")
struct HalvesTests {
    @Test func areWidenedAsTheProcessorDoes() {
        for bits in UInt16.min...UInt16.max {
            let expected = Float(Float16(bitPattern: bits))
            let found = portableFloat(ofHalf: bits)
            #expect(found.bitPattern == expected.bitPattern || (found.isNaN && expected.isNaN))
        }
    }

    @Test func keepTheFirstPositionsOfEveryHead() throws {
        let layout = try layout()
        let held = 5
        let kept = 2
        let cache = (0..<2 * 3 * held * 64).map { UInt16($0) }
        var rows = [UInt16](repeating: 0, count: 2 * 3 * kept * 64)
        cache.withUnsafeBufferPointer { source in
            rows.withUnsafeMutableBufferPointer {
                copyRows(of: source, layout: layout, held: held, kept: kept, into: $0)
            }
        }
        let expected = (0..<6).flatMap { block in
            (0..<kept * 64).map { UInt16(block * held * 64 + $0) }
        }
        #expect(rows == expected)
    }
}

@Suite("Compiled models")
struct CompiledModelsTests {
    private let base = FileManager.default.temporaryDirectory
        .appendingPathComponent(UUID().uuidString, isDirectory: true)

    private func compiling(_ models: CompiledModels, system: String, fails: Bool = false) async throws -> URL
    {
        let temporary = base.appendingPathComponent(UUID().uuidString)
        return try await models.model(
            of: base.appendingPathComponent("model.mlpackage"), manifestSha256: "ab12", system: system
        ) { _ in
            if fails { throw EngineError("no", hint: "") }
            try FileManager.default.createDirectory(at: temporary, withIntermediateDirectories: true)
            return temporary
        }
    }

    @Test func areCompiledOnceForEachSystem() async throws {
        defer { try? FileManager.default.removeItem(at: base) }
        let models = CompiledModels(folder: base.appendingPathComponent("Compiled"))
        await #expect(throws: EngineError.self) { try await compiling(models, system: "18.1", fails: true) }
        let first = try await compiling(models, system: "Version 18.1 (Build 22B83)")
        #expect(first.lastPathComponent == "ab12-version-18-1--build-22b83-.mlmodelc")
        #expect(try await compiling(models, system: "Version 18.1 (Build 22B83)", fails: true) == first)
        let second = try await compiling(models, system: "19")
        #expect(second != first)
        #expect(FileManager.default.fileExists(atPath: second.path))
        #expect(!FileManager.default.fileExists(atPath: first.path))
        try models.forget(manifestSha256: "ab12")
        #expect(try FileManager.default.contentsOfDirectory(atPath: models.folder.path).isEmpty)
    }
}
