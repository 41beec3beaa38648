import Dispatch

/// Why a text ended, in Python's words.
public enum StopReason: String, Sendable {
    case stopToken = "stop token"
    case stopText = "stop text"
    case length
    case contextFull = "context full"

    /// It has not ended, or somebody stopped it.
    case interrupted
}

/// The figures of a generation.
public struct GenerationStats: Sendable, Equatable {
    /// Length of the whole prompt, in tokens.
    public let promptTokens: Int

    /// Number of the prompt's tokens that the cache already held.
    public let reusedTokens: Int

    /// Number of tokens written, without the stop token.
    public let newTokens: Int

    /// Seconds until the first token was chosen; 0 before it.
    public let timeToFirstTokenS: Double

    /// Seconds from the first token to the last.
    public let decodeS: Double

    /// Why it ended.
    public internal(set) var stopReason: StopReason

    /// Seed of the random numbers, with which the same text can be had again.
    public let seed: Int64

    /// Number of positions that the prompt and the new tokens take.
    public let contextTokens: Int

    /// Number of positions that there are.
    public let maxContext: Int

    /// Speed of the tokens after the first; 0 where there is none.
    public var decodeTokensPerS: Double {
        newTokens > 1 && decodeS > 0 ? Double(newTokens - 1) / decodeS : 0
    }
}

/// Token ids of one text, one after the other; it ends by itself, or when it is stopped.
///
/// No one else may use the cache until it has ended.
final class Generation {
    private let cache: KeptCache
    private let prompt: [Int32]
    private let sampling: Sampling
    private let stopIds: Set<Int32>
    private let maxTokens: Int
    private let drawing: Drawing
    private let clock: () -> UInt64
    private let reused: Int
    private var random: SeededRandom
    private var seen: Set<Int32> = []
    private var last: Int32?
    private var count = 0
    private var begunAt: UInt64 = 0
    private var firstAt: UInt64?
    private var lastAt: UInt64 = 0
    private var hasEnded = false
    private var reason = StopReason.interrupted

    /// Begin a text.
    ///
    /// - Parameters:
    ///   - cache: cache that holds the beginning of the prompt and nothing else
    ///   - prompt: the whole prompt, at least a token longer than what the cache holds
    ///   - settings: how tokens are drawn, and how many
    ///   - stopIds: ids that end the text and are not part of it; the repetition penalty spares them: every
    ///     earlier turn of a chat holds one, and answers would never end
    ///   - drawing: what draws them; its V is at most the cache's
    ///   - clock: nanoseconds, for differences only
    init(
        _ cache: KeptCache, prompt: [Int32], settings: WriteSettings, stopIds: Set<Int32>, drawing: Drawing,
        clock: @escaping () -> UInt64
    ) {
        self.cache = cache
        self.prompt = prompt
        self.stopIds = stopIds
        self.drawing = drawing
        self.clock = clock
        sampling = settings.sampling.withSeed()
        maxTokens = settings.maxTokens
        reused = cache.position
        random = SeededRandom(seed: sampling.seed ?? 0)
        if sampling.repetitionPenalty != 1 { seen = Set(prompt).subtracting(stopIds) }
    }

    /// The figures so far.
    var stats: GenerationStats {
        GenerationStats(
            promptTokens: prompt.count, reusedTokens: reused, newTokens: count,
            timeToFirstTokenS: firstAt.map { seconds(from: begunAt, to: $0) } ?? 0,
            decodeS: firstAt.map { seconds(from: $0, to: lastAt) } ?? 0,
            stopReason: reason, seed: sampling.seed ?? 0, contextTokens: prompt.count + count,
            maxContext: cache.maxContext)
    }

    /// Draw the next token.
    ///
    /// - Parameter onProgress: as ``KeptCache/read(_:stop:onProgress:)`` calls it, while the prompt is read
    /// - Returns: its id; nil: the text has ended
    /// - Throws: ``EngineError`` if the runtime failed, or computes no numbers
    func next(_ stop: Stop, onProgress: (Int, Int) -> Void) throws -> Int32? {
        if hasEnded || reason != .interrupted {
            hasEnded = true
            return nil
        }
        if last == nil { begunAt = clock() }
        hasEnded = true  // until it is known that nothing failed
        let unread = last.map { [$0] } ?? Array(prompt[reused...])
        let held = cache.position
        guard let logits = try cache.read(unread, stop: stop, onProgress: onProgress) else { return nil }
        let token: Int32
        do {
            token = try drawing.draw(logits, sampling, seen: seen, &random)
        } catch {
            // What was computed wrongly is not used again: the next text reads it anew.
            try cache.rewind(to: held)
            throw error
        }
        let isStop = stopIds.contains(token)
        note(clock(), isNew: !isStop)
        if isStop {
            reason = .stopToken
            return nil
        }
        hasEnded = false
        last = token
        count += 1
        if sampling.repetitionPenalty != 1 { seen.insert(token) }
        if cache.position >= cache.maxContext {
            reason = .contextFull
        } else if count == maxTokens {
            reason = .length
        }
        return token
    }

    /// End it here; what was written stays in the cache.
    func close() {
        hasEnded = true
    }

    private func note(_ now: UInt64, isNew: Bool) {
        if firstAt == nil || isNew { lastAt = now }
        firstAt = firstAt ?? now
    }
}

/// Draws tokens from a model's logits, which it copies where it changes them: the buffer is the model's.
final class Drawing {
    private let headTokens: [Int32]
    private let sampler: Sampler
    private var known: [Float]

    /// Make room for logits.
    ///
    /// - Parameters:
    ///   - vocabSize: number of ids to draw from, the first ones; a model's table may be padded beyond its
    ///     tokenizer
    ///   - headTokens: ids of the tokens that the logits stand for; empty: each stands for its own index
    init(vocabSize: Int, headTokens: [Int32]) {
        self.headTokens = headTokens
        sampler = Sampler(vocabSize: vocabSize)
        known = Array(repeating: 0, count: vocabSize)
    }

    func draw(
        _ logits: UnsafeBufferPointer<Float>, _ sampling: Sampling, seen: Set<Int32>,
        _ random: inout SeededRandom
    ) throws -> Int32 {
        let u = sampling.temperature == 0 ? 0 : random.next()
        if headTokens.isEmpty && sampling.repetitionPenalty == 1 {
            return try sampler.draw(UnsafeBufferPointer(rebasing: logits[..<known.count]), sampling, u: u)
        }
        if headTokens.isEmpty {
            known.withUnsafeMutableBufferPointer { _ = $0.update(fromContentsOf: logits[..<$0.count]) }
        } else {
            spread(logits)
        }
        penalise(&known, ids: seen, penalty: sampling.repetitionPenalty)
        return try sampler.draw(known, sampling, u: u)
    }

    /// A token that a pruned head has no row for has the logit -infinity: it is never drawn.
    private func spread(_ logits: UnsafeBufferPointer<Float>) {
        for id in known.indices { known[id] = -.infinity }
        for (place, id) in headTokens.enumerated() where Int(id) < known.count {
            known[Int(id)] = logits[place]
        }
    }
}

/// Return the nanoseconds of a clock that never goes back.
@Sendable public func monotonicNanoseconds() -> UInt64 {
    DispatchTime.now().uptimeNanoseconds
}

private func seconds(from begin: UInt64, to end: UInt64) -> Double {
    Double(end &- begin) / 1e9
}
