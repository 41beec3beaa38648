import Foundation
import LlamaKit

/// Holds a model before its next step while the app may not compute.
///
/// iOS ends apps that use the GPU in the background, and nothing catches that. A step that waits here
/// goes on where it was when the app is back, or ends when it is interrupted.
///
/// Unchecked, because the condition's lock guards every field.
public final class PauseGate: @unchecked Sendable {
    private let condition = NSCondition()
    private var isPaused = false
    private var isInterrupted = false
    private var waiting = 0

    public init() {}

    /// Let no step begin.
    public func pause() {
        locked { isPaused = true }
    }

    /// Let steps begin again.
    public func resume() {
        locked { isPaused = false }
    }

    /// End a wait; one that begins just now ends too, and whoever waits without a wish to stop tries again.
    func interrupt() {
        locked { isInterrupted = true }
    }

    /// Whether a step waits.
    var holdsStep: Bool { locked { waiting > 0 } }

    /// Wait until steps may begin.
    ///
    /// - Throws: ``StepStopped`` if the wait was interrupted
    func wait() throws {
        try locked {
            waiting += 1
            defer { waiting -= 1 }
            while isPaused && !isInterrupted { condition.wait() }
            let wasInterrupted = isPaused && isInterrupted
            isInterrupted = false
            if wasInterrupted { throw StepStopped() }
        }
    }

    private func locked<Value>(_ body: () throws -> Value) rethrows -> Value {
        condition.lock()
        defer {
            condition.broadcast()
            condition.unlock()
        }
        return try body()
    }
}

/// A model whose steps wait at a gate.
public final class PausingModel: StepModel {
    private let model: any StepModel
    private let gate: PauseGate

    /// - Parameters:
    ///   - model: model that is stepped
    ///   - gate: gate at which its steps wait
    public init(_ model: any StepModel, _ gate: PauseGate) {
        self.model = model
        self.gate = gate
    }

    public var vocabSize: Int { model.vocabSize }
    public var maxContext: Int { model.maxContext }

    public func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try gate.wait()
        return try model.step(ids, at: position)
    }

    public var interrupt: (@Sendable () -> Void)? {
        let gate = gate
        let inner = model.interrupt
        return {
            gate.interrupt()
            inner?()
        }
    }
}
