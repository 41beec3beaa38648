import Foundation
import LlamaKit

/// Work that reads and writes files: one piece after the other, in the order that it was asked for.
public final class FileWork: Sendable {
    private let queue: DispatchQueue
    let log: AppLog

    /// - Parameters:
    ///   - name: name of the queue, for the log
    ///   - log: where failures go
    public init(_ name: String, log: AppLog) {
        queue = DispatchQueue(label: "org.llamaexport.\(name)", qos: .userInitiated)
        self.log = log
    }

    /// Do work after all that was begun before, and hear on the main actor what came of it.
    public func begin<Value: Sendable>(
        _ work: @escaping @Sendable () throws -> Value,
        onEnd: @escaping @MainActor @Sendable (Outcome<Value>) -> Void = { _ in }
    ) {
        let log = log
        queue.async {
            let result = attempt(work, log)
            Task { @MainActor in onEnd(result) }
        }
    }

    /// Do work after all that was begun before, and return what came of it.
    public func run<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
        let log = log
        let result: Outcome<Value> = await withCheckedContinuation { continuation in
            queue.async { continuation.resume(returning: attempt(work, log)) }
        }
        return try result.get()
    }
}

private func attempt<Value: Sendable>(_ work: () throws -> Value, _ log: AppLog) -> Outcome<Value> {
    do {
        return .done(try work())
    } catch {
        log.write("files", error)
        return .failed(inWords(error))
    }
}

/// Return an error that a person can act on, of any error.
func inWords(_ error: any Error) -> any AppError {
    if let known = error as? any AppError { return known }
    return EngineError(
        "it failed: \(error.localizedDescription)", hint: "Share the log with the app's makers.", kind: .other
    )
}

/// What came of a piece of work.
public enum Outcome<Value: Sendable>: Sendable {
    case done(Value)
    case failed(any AppError)

    /// What went wrong; nil: nothing.
    public var fault: (any AppError)? {
        if case .failed(let error) = self { return error }
        return nil
    }

    /// Return the value.
    ///
    /// - Throws: what went wrong
    public func get() throws -> Value {
        switch self {
        case .done(let value): return value
        case .failed(let error): throw error
        }
    }
}
