import Foundation
import Synchronization
import Testing

@testable import LlamaKit

/// Makes one step of a model last until somebody stops it.
final class Hold: Sendable {
    private let callsLeft = Mutex<Int?>(nil)
    private let stopped = DispatchSemaphore(value: 0)

    /// Hold the step after some more; nothing may run meanwhile.
    func step(after calls: Int) {
        while stopped.wait(timeout: .now()) == .success {}
        callsLeft.withLock { $0 = calls }
    }

    func release() {
        stopped.signal()
    }

    /// Return whether the step that runs was held, and is stopped now.
    func isHeld() throws -> Bool {
        let holds = callsLeft.withLock { left in
            defer { left = left.flatMap { $0 > 0 ? $0 - 1 : nil } }
            return left == 0
        }
        if !holds { return false }
        if stopped.wait(timeout: .now() + 30) == .timedOut {
            throw EngineError("nobody stopped it", hint: "")
        }
        return true
    }
}

/// A model whose steps take a while, and one of which lasts until somebody stops it.
final class Held: Failing {
    private let hold: Hold
    private var isObedient = true

    init(_ hold: Hold, maxContext: Int = 700) {
        self.hold = hold
        super.init(maxContext)
    }

    override var interrupt: (@Sendable () -> Void)? { { [hold] in hold.release() } }

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        usleep(100)
        if try hold.isHeld() {
            isObedient.toggle()
            // It ends early after some rows, or late.
            if !isObedient {
                if ids.count > 1 { _ = try super.step(Array(ids[..<(ids.count / 2)]), at: position) }
                throw StepStopped()
            }
        }
        return try super.step(ids, at: position)
    }
}

let letters = ChatModel(
    tokenizer: LetterTokenizer(["begin", "end"]), format: shortForm, stopIds: [endToken])

/// Read an answer to its end.
@discardableResult
func whole(_ pieces: Pieces) async throws -> (text: String, stats: GenerationStats?) {
    var text = ""
    var stats: GenerationStats?
    for try await piece in pieces {
        switch piece {
        case .reading: break
        case .text(let more): text += more
        case .end(let found): stats = found
        }
    }
    return (text, stats)
}

extension ChatSession {
    /// Whether the model's cache holds what its record says.
    func isTrue() throws -> Bool {
        try use { cache in
            let model = try #require(cache.model as? RowModel)
            return cache.tokens.enumerated().map { row($1, $0) } == Array(model.rows[..<cache.position])
        }
    }
}
