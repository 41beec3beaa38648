import BundleChecks
import Foundation
import LlamaKit
import Testing

/// What a bundle's golden data say of a model and of the same model with a fault.
private func proveGolden(_ bundle: URL, _ model: any StepModel) throws {
    let content = try Data(contentsOf: bundle.appendingPathComponent(goldenName))
    let golden = try Golden.parse(Array(content))
    let verdict = { (model: any StepModel) throws -> GoldenVerdict in
        golden.judge(try #require(try golden.run(KeptCache(model))))
    }
    let right = try verdict(model)
    #expect(right.isGreen && right.firstBeyond == nil, "\(right)")
    let faults: [any StepModel] = [Shifted(model), StaleRow(model), SwappedHead(model), WrongScale(model)]
    for twin in faults {
        let wrong = try verdict(twin)
        #expect(!wrong.isGreen, "\(type(of: twin)): \(wrong)")
    }
}

@Suite("Golden data of real bundles, right and with four faults", .serialized)
struct ProofTests {
    @Test("by onnxruntime", arguments: ["demo/onnx", "smollm2/onnx"].filter(Turns.isMade))
    func onnx(name: String) throws {
        let turns = try #require(try Turns.of(name))
        let model = try OnnxStepModel(
            path: turns.artifact.path, graph: turns.graph(), vocabSize: turns.vocabSize)
        try proveGolden(turns.bundle, model)
    }

    @Test("by ExecuTorch in Python", .enabled(if: Turns.isMade("demo/executorch")))
    func executorch() throws {
        let turns = try #require(try Turns.of("demo/executorch"))
        try proveGolden(turns.bundle, ServedStepModel("demo/executorch"))
    }

    @Test(
        "by the Core ML loop and Python's evaluator",
        arguments: ["demo/coreml", "demo-fixed/coreml", "demo-io/coreml"].filter(Turns.isMade))
    func coreml(name: String) throws {
        let turns = try #require(try Turns.of(name))
        let model = CoreMLLoop(
            layout: try CoreMLLayout(graph: turns.graph()), maxContext: turns.maxContext,
            runner: try ServedCoreMLRunner(name))
        try proveGolden(turns.bundle, model)
    }

    @Test("SmolLM2 answers a question in its own form", .enabled(if: Turns.isMade("smollm2/onnx")))
    func paris() async throws {
        let turns = try #require(try Turns.of("smollm2/onnx"))
        let manifest = try ModelBundle.open(turns.bundle).manifest
        let model = ChatModel(
            tokenizer: try loadTokenizer(turns.bundle),
            format: try ChatFormat(try #require(manifest.chat), vocabSize: manifest.vocabSize),
            stopIds: manifest.stopIds)
        let session = try await ChatSession(model) {
            try OnnxStepModel(
                path: turns.artifact.path, graph: turns.graph(), vocabSize: turns.vocabSize)
        }
        var answer = ""
        let settings = try WriteSettings(sampling: Sampling(temperature: 0), maxTokens: 32)
        for try await piece in session.send("What is the capital of France?", settings) {
            if case .text(let text) = piece { answer += text }
        }
        #expect(answer.contains("Paris"), "\(answer)")
        await session.close()
    }
}

/// A model with a fault in front of a right one.
private class Faulty: StepModel {
    let model: any StepModel
    var vocabSize: Int { model.vocabSize }
    var maxContext: Int { model.maxContext }
    private lazy var changed = UnsafeMutableBufferPointer<Float>.allocate(capacity: vocabSize)

    init(_ model: any StepModel) {
        self.model = model
    }

    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try model.step(ids, at: position)
    }

    func change(
        _ logits: UnsafeBufferPointer<Float>, _ each: (UnsafeBufferPointer<Float>, Int) -> Float
    ) -> UnsafeBufferPointer<Float> {
        for index in logits.indices { changed[index] = each(logits, index) }
        return UnsafeBufferPointer(changed)
    }
}

/// Every token stands one position too late, behind a copy of the first.
private final class Shifted: Faulty {
    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        if position == 0 { _ = try model.step([ids[0]], at: 0) }
        return try model.step(ids, at: position + 1)
    }
}

/// After a rewind one row that should be forgotten stays.
private final class StaleRow: Faulty {
    private var written = 0
    private var stale = 0

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        if position < written { stale = position > 0 ? 1 : 0 }
        written = position + ids.count
        return try model.step(ids, at: position + stale)
    }
}

/// Each two neighbouring rows of the output head have changed places.
private final class SwappedHead: Faulty {
    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        change(try model.step(ids, at: position)) { logits, index in
            logits[min(index ^ 1, logits.count - 1)]
        }
    }
}

/// The output head's scale is a tenth too large.
private final class WrongScale: Faulty {
    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        change(try model.step(ids, at: position)) { logits, index in logits[index] * 1.1 }
    }
}
