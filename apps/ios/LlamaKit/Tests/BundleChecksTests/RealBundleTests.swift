import BundleChecks
import Foundation
import LlamaKit
import Testing

@Suite("Real bundles", .serialized)
struct RealBundleTests {
    /// A test without its bundle is not run; without any there would be nothing to fail.
    @Test func oneAtLeastIsThere() {
        #expect(["demo/onnx", "demo/executorch", "demo/coreml"].contains(where: Turns.isMade))
    }

    @Test(
        "an ONNX bundle writes Python's ids, with an edit, rewinds and a cache that doubles",
        arguments: ["demo/onnx", "smollm2/onnx"].filter(Turns.isMade))
    func onnx(name: String) throws {
        let turns = try #require(try Turns.of(name))
        let model = try OnnxStepModel(
            path: turns.artifact.path, graph: turns.graph(), vocabSize: turns.vocabSize)
        #expect(model.maxContext == turns.maxContext)
        var slots: [Int] = []
        for turn in turns.turns {
            #expect(try turn.play(with: model) == turn.written, "after \(turn.position)")
            slots.append(model.slots)
        }
        #expect(slots.first == 512 && slots.last == 1024)
    }

    @Test("a .pte writes Python's ids", .enabled(if: Turns.isMade("demo/executorch")))
    func executorch() throws {
        let turns = try #require(try Turns.of("demo/executorch"))
        let model = try ServedStepModel("demo/executorch")
        for turn in turns.turns {
            #expect(try turn.play(with: model) == turn.written, "after \(turn.position)")
        }
    }

    @Test(
        "the Core ML loop writes Python's ids in each form of a package",
        arguments: ["demo/coreml", "demo-fixed/coreml", "demo-io/coreml"].filter(Turns.isMade))
    func coreml(name: String) throws {
        let turns = try #require(try Turns.of(name))
        let runner = try ServedCoreMLRunner(name)
        let layout = try CoreMLLayout(graph: turns.graph())
        #expect(layout.vocabSize == turns.vocabSize && layout.maxContext == turns.maxContext)
        let model = CoreMLLoop(layout: layout, maxContext: turns.maxContext, runner: runner)
        // A prompt, an edit in its middle, and all from the beginning again; the rest takes a while here.
        for turn in turns.turns.prefix(2) + turns.turns.suffix(1) {
            #expect(try turn.play(with: model) == turn.written, "after \(turn.position)")
        }
        if case .fixed(let prefillTokens) = layout.form {
            #expect(prefillTokens == 64)
            let prefills = runner.calls.filter { $0.function == CoreMLNames.prefill }
            #expect(prefills.allSatisfy { $0.ids.count == 64 } && prefills.contains { $0.length < 64 })
            #expect(runner.calls.contains { $0.function == CoreMLNames.decode })
        }
    }
}
