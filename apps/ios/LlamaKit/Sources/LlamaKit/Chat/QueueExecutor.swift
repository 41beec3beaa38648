import Dispatch

/// Runs an actor on a queue of its own, so that the steps of a model never block the threads that all tasks
/// share.
final class QueueExecutor: SerialExecutor {
    private let queue: DispatchQueue

    init(label: String) {
        queue = DispatchQueue(label: label, qos: .userInitiated)
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.async { job.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }

    func checkIsolated() {
        dispatchPrecondition(condition: .onQueue(queue))
    }

    /// Run work after all that was handed over before.
    func run(_ work: @escaping @Sendable () -> Void) {
        queue.async(execute: work)
    }
}
