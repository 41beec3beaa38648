import Synchronization

/// A wish to stop, made on any thread; what runs looks at it before each call of the model.
public final class Stop: Sendable {
    private struct State {
        var isRequested = false
        var interrupt: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Begin without a wish.
    public init() {}

    /// Whether somebody wishes so.
    public var isRequested: Bool { state.withLock { $0.isRequested } }

    /// Stop as soon as it can be done, for good: the next text takes a `Stop` of its own.
    public func request() {
        let interrupt = state.withLock { state in
            state.isRequested = true
            return state.interrupt
        }
        interrupt?()
    }

    /// Make a step that ``request()`` can end early; nil where it did, or came before, or where the task that
    /// runs it is cancelled.
    func step(_ model: any StepModel, _ ids: [Int32], at position: Int) throws
        -> UnsafeBufferPointer<Float>?
    {
        let interrupt = model.interrupt
        state.withLock { $0.interrupt = interrupt }
        defer { state.withLock { $0.interrupt = nil } }
        while !isRequested && !Task.isCancelled {
            do {
                return try model.step(ids, at: position)
            } catch is StepStopped {
                // Where nobody asked for it here, it was the stop of a text before, come late.
            }
        }
        return nil
    }
}
