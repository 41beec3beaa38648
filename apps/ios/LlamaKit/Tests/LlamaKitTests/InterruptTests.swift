import Foundation
import Synchronization
import Testing

@testable import LlamaKit

/// A model whose long calls take until somebody stops them, and that stops once too often.
private final class Slow: RowModel {
    let isReading = DispatchSemaphore(value: 0)
    private let stopped = DispatchSemaphore(value: 0)
    var lateStops = 0

    init() {
        super.init(maxContext: 400)
    }

    override var interrupt: (@Sendable () -> Void)? { { [stopped] in stopped.signal() } }

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        if ids.count == pieceTokens && position > 0 {
            isReading.signal()
            if stopped.wait(timeout: .now() + 10) == .timedOut {
                throw EngineError("nobody stopped it", hint: "")
            }
            _ = try super.step(Array(ids[..<9]), at: position)
            throw StepStopped()
        }
        if lateStops > 0 {
            lateStops -= 1
            throw StepStopped()
        }
        return try super.step(ids, at: position)
    }
}

@Suite("Stopping a call that runs")
struct InterruptTests {
    @Test func whatDoesNotRunIsNotStopped() throws {
        final class Counting: RowModel {
            static let interrupts = Mutex(0)
            override var interrupt: (@Sendable () -> Void)? { { Self.interrupts.withLock { $0 += 1 } } }
        }
        let stop = Stop()
        let generator = Generator(try KeptCache(Counting()), tokenizer: LetterTokenizer(), stopIds: [])
        try generator.begin([1], greedy(3)).finish(stop)
        stop.request()
        #expect(Counting.interrupts.withLock { $0 } == 0)
    }

    @Test func aCancelledTaskReadsNothing() async throws {
        final class Cancellable: RowModel {
            override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
                let logits = try super.step(ids, at: position)
                withUnsafeCurrentTask { $0?.cancel() }
                if Task.isCancelled { throw StepStopped() }
                return logits
            }
        }
        let read = Task {
            let cache = try KeptCache(Cancellable())
            let logits = try cache.read([1, 2, 3])
            return (logits == nil, cache.position)
        }
        #expect(try await read.value == (true, 0))
    }

    @Test func aCallThatTakesLongIsStoppedFromAnotherThread() throws {
        let model = Slow()
        let cache = try KeptCache(model)
        let generator = Generator(cache, tokenizer: LetterTokenizer(), stopIds: [])
        let stop = Stop()
        let isReading = model.isReading
        DispatchQueue.global().async {
            isReading.wait()
            stop.request()
        }
        let found = try generator.begin((0..<300).map { $0 % 60 }, greedy()).finish(stop)
        #expect(found.stats.stopReason == .interrupted)
        #expect(cache.position == pieceTokens)
        model.lateStops = 1
        let again = try generator.begin([1, 2], greedy(5)).finish()
        let fresh = Generator(try KeptCache(RowModel()), tokenizer: LetterTokenizer(), stopIds: [])
        #expect(try fresh.begin([1, 2], greedy(5)).finish().ids == again.ids)
    }
}
