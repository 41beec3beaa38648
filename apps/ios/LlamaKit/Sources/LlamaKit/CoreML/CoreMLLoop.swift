import Synchronization

/// Makes the calls of a Core ML package, whatever runs it.
public protocol CoreMLRunner: AnyObject {
    /// Run a call and return the logits `[V]` of its last row, valid until the next call.
    ///
    /// What the cache holds from the call's position on is forgotten.
    ///
    /// - Throws: ``EngineError`` if the runtime failed; ``BundleError`` if it gave something else
    func run(_ call: CoreMLCall) throws -> UnsafeBufferPointer<Float>
}

/// A Core ML package as a ``StepModel``: positions, pieces of a prompt, and rewinding.
///
/// It knows no Core ML, so that Linux runs it too. A call cannot be ended early, and a step is ended between
/// two: near the end of a context of fixed functions a piece of a prompt takes a call for each token.
public final class CoreMLLoop: StepModel {
    public let vocabSize: Int
    public let maxContext: Int

    private let runner: any CoreMLRunner
    private let plan: CoreMLPlan
    private let mark = StopMark()
    private var written = 0

    /// - Parameters:
    ///   - layout: facts of the package
    ///   - maxContext: largest number of positions, at most the package's
    ///   - runner: what makes its calls
    public init(layout: CoreMLLayout, maxContext: Int, runner: any CoreMLRunner) {
        self.vocabSize = layout.vocabSize
        self.maxContext = min(maxContext, layout.maxContext)
        self.runner = runner
        // The slots are the package's, however few positions are wanted.
        self.plan = CoreMLPlan(form: layout.form, maxContext: layout.maxContext)
    }

    public var interrupt: (@Sendable () -> Void)? { { [mark] in mark.isSet.store(true, ordering: .relaxed) } }

    public func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: written)
        mark.isSet.store(false, ordering: .relaxed)
        written = position
        var rest = ids[...]
        while true {
            if mark.isSet.load(ordering: .relaxed) { throw StepStopped() }
            let call = plan.nextCall(rest, at: written)
            let logits = try runner.run(call)
            if logits.count != vocabSize {
                throw BundleError(
                    "the package gave \(logits.count) logits, expected \(vocabSize)",
                    hint: "Get the whole bundle again: its files do not belong together.")
            }
            written += call.length
            rest = rest.dropFirst(call.length)
            if rest.isEmpty { return logits }
        }
    }
}

/// Tells a step that runs to end.
private final class StopMark: Sendable {
    let isSet = Atomic(false)
}
