import Foundation
import Synchronization
import Testing

@testable import LlamaKit

private struct ScreenGone: Error {}

/// What a model was asked for from another thread.
private final class Wish: Sendable {
    private let isStopping = Atomic(false)

    func begin() { isStopping.store(false, ordering: .sequentiallyConsistent) }

    func stop() { isStopping.store(true, ordering: .sequentiallyConsistent) }

    var isThere: Bool { isStopping.load(ordering: .sequentiallyConsistent) }
}

/// A model that is stopped and fails as runtimes do: some rows are written by then, or all.
private final class Unsteady: RowModel {
    private let wish = Wish()
    private var dice: Dice
    private(set) var stopped = 0

    /// Number of calls until one fails; negative: none does.
    var failsIn = -1

    init(_ seed: Int) {
        dice = Dice(seed)
        super.init(vocabSize: 256, maxContext: 700)
    }

    override var interrupt: (@Sendable () -> Void)? { { [wish] in wish.stop() } }

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        wish.begin()
        failsIn -= 1
        if failsIn == -1 {
            try writeSome(ids, at: position)
            throw EngineError("the runtime failed", hint: "")
        }
        if dice.below(3) == 0 { sched_yield() }
        if wish.isThere {
            stopped += 1
            try writeSome(ids, at: position)
            throw StepStopped()
        }
        return try super.step(ids, at: position)
    }

    private func writeSome(_ ids: [Int32], at position: Int) throws {
        let count = dice.below(ids.count + 1)
        if count > 0 { _ = try super.step(Array(ids[..<count]), at: position) }
    }
}

/// A model that writes rows of no numbers while it is hot, as a phone's runtime may.
private final class Hot: RowModel {
    var isHot = false
    private(set) var bad: Set<Int> = []

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        bad = bad.filter { $0 < position }
        if isHot { bad.formUnion(position..<position + ids.count) }
        let logits = try super.step(ids, at: position)
        if !bad.isEmpty { buffer[0] = .nan }
        return logits
    }
}

/// Taps on stop now and then, on a thread of its own.
private final class Tapper: Sendable {
    let running = Mutex<Stop?>(nil)
    private let isDone = Atomic(false)

    func start() {
        Thread.detachNewThread {
            var dice = Dice(1)
            while !self.isDone.load(ordering: .relaxed) {
                if dice.below(3) == 0 { self.running.withLock { $0 }?.request() } else { sched_yield() }
            }
        }
    }

    func end() { isDone.store(true, ordering: .relaxed) }
}

/// Whatever ends a text, and whenever: the next one is that of a model without a past.
@Suite("The cache's truth")
struct CacheTruthTests {
    private func generator(_ model: any StepModel) throws -> Generator {
        Generator(try KeptCache(model), tokenizer: LetterTokenizer(), stopIds: [7, 77])
    }

    @Test func stopsFromAnotherThreadFailuresAndFaultsOfTheScreenLeaveATrueCache() throws {
        let tapper = Tapper()
        tapper.start()
        defer { tapper.end() }
        var ends: [String: Int] = [:]
        var midway = 0
        for seed in 0..<30 { midway += try play(seed, tapper, &ends) }
        for end in ["interrupted", "EngineError", "ScreenGone", "length"] {
            #expect(ends[end] ?? 0 > 10, "\(ends)")
        }
        #expect(midway > 0)
    }

    /// Write texts, count how they end, and return how many calls were stopped in the middle.
    private func play(_ seed: Int, _ tapper: Tapper, _ ends: inout [String: Int]) throws -> Int {
        var dice = Dice(seed)
        let model = Unsteady(seed)
        let generator = try generator(model)
        var prompt: [Int32] = [1]
        for _ in 0..<15 {
            prompt = Array(nextPrompt(prompt, &dice).prefix(500))
            model.failsIn = dice.below(4) == 0 ? dice.below(8) : -1
            let settings = try greedy(1 + dice.below(20))
            let stop = Stop()
            var left = dice.below(5) == 0 ? dice.below(6) : Int.max
            if dice.below(2) == 0 { tapper.running.withLock { $0 = stop } }
            let run = try generator.begin(prompt, settings)
            let end: String
            do {
                try run.finish(stop) { _ in
                    left -= 1
                    if left < 0 { throw ScreenGone() }
                }
                end = run.completion.stats.stopReason.rawValue
            } catch {
                end = "\(type(of: error))"
            }
            tapper.running.withLock { $0 = nil }
            ends[end, default: 0] += 1
            let ids = run.completion.ids
            let tokens = generator.cache.tokens
            try #require(tokens == Array((prompt + ids).prefix(tokens.count)))
            try #require(tokens.enumerated().map { row($1, $0) } == Array(model.rows[..<tokens.count]))
            let fresh = RowModel(vocabSize: 256, maxContext: 700)
            let expected = try self.generator(fresh).begin(prompt, settings).finish().ids
            try #require(ids == Array(expected.prefix(ids.count)))
            if end == "length" || end == "stop token" { try #require(expected.count == ids.count) }
            prompt += ids
        }
        return model.stopped
    }

    private func nextPrompt(_ last: [Int32], _ dice: inout Dice) -> [Int32] {
        func random(_ count: Int) -> [Int32] { (0..<count).map { _ in Int32(dice.below(256)) } }
        switch dice.below(4) {
        case 0: return Array(last.prefix(1 + dice.below(last.count)))
        case 1:
            var edited = last
            edited[dice.below(edited.count)] = Int32(dice.below(256))
            return edited
        case 2: return random(1 + dice.below(300))
        default: return last + random(1 + dice.below(20))
        }
    }

    @Test func rowsThatGaveNoNumbersAreReadAgain() throws {
        let model = Hot()
        let generator = try generator(model)
        let first: [Int32] = [1, 2, 3]
        let settings = try greedy(9)
        let expected = try generator.begin(first, settings).finish().ids
        for good in [0, 1, 4] {
            try generator.cache.rewind(to: 0)
            let run = try generator.begin(first, settings)
            for _ in 0..<good { _ = try run.next(Stop()) }
            model.isHot = true
            #expect(throws: EngineError.self) { try run.finish() }
            model.isHot = false
            #expect(!model.bad.isEmpty)
            #expect(try generator.begin(first, settings).finish().ids == expected)
        }
    }

    @Test func aTextEndsAsSoonAsAnotherIsAskedForAlsoWhereThatIsRefused() throws {
        let generator = try generator(RowModel())
        let refused: [() throws -> TextRun] = [{ try generator.begin("") }, { try generator.begin([]) }]
        for begin in refused {
            let run = try generator.begin([1], greedy())
            _ = try run.next(Stop())
            #expect(throws: PromptError.self) { try begin() }
            #expect(try run.next(Stop()) == nil)
        }
    }

    @Test func aContinuationAndAnAnswerAreAsLongAsPythonsByDefault() throws {
        let cache = try KeptCache(RowModel(vocabSize: 256, maxContext: 700))
        let generator = Generator(cache, tokenizer: LetterTokenizer(), stopIds: [])
        #expect(try generator.begin([1]).finish().ids.count == 256)
        #expect(WriteSettings.defaults.maxTokens == 512)
    }
}
