/// The readings that a measurement takes; the phone gives them.
public protocol BenchHost {
    /// Return nanoseconds, for differences only.
    func clockNanos() -> UInt64

    /// Return what this process holds in memory; nil: not known.
    func residentBytes() -> Int64?

    /// Return the most that it ever held; nil: not known.
    func peakResidentBytes() -> Int64?

    /// Return how hot the phone is, in the system's words; nil: not known.
    func thermal() -> String?
}

/// The figures of one length of prompt.
public struct PrefillFigures: Sendable, Equatable {
    /// Length of the prompt, in tokens.
    public let tokens: Int

    /// Seconds until the first token was chosen.
    public let firstTokenS: Spread

    /// Speed of reading, in tokens a second.
    public let tokensPerS: Spread
}

/// The figures of decoding with a number of positions in the cache.
public struct DecodeFigures: Sendable, Equatable {
    /// Number of positions in the cache.
    public let context: Int

    /// Speed of decoding, in tokens a second.
    public let tokensPerS: Spread
}

/// All figures of one artifact on this phone.
public struct BenchResult: Sendable, Equatable {
    /// Seconds until the model was ready.
    public let loadS: Double

    /// Memory of the process before loading; nil: not known, as below.
    public let residentBeforeBytes: Int64?

    /// Memory of the process after loading.
    public let residentBytes: Int64?

    /// Largest memory of the process, over its life.
    public let peakResidentBytes: Int64?

    /// Length of the very first prompt, in tokens.
    public let firstCallTokens: Int

    /// Seconds that reading it took, more than later ones take.
    public let firstCallS: Double

    /// Figures by length of prompt.
    public let prefill: [PrefillFigures]

    /// Figures by context.
    public let decode: [DecodeFigures]

    /// How hot the phone was before the measurement.
    public let thermalBefore: String?

    /// How hot it was at its end.
    public let thermalAfter: String?
}

/// A load and a measurement of one model, whose prompts are always the same.
public struct Bench {
    private let plan: BenchPlan
    private let host: any BenchHost
    private let ordinaryTokens: Int
    private let headTokens: [Int32]

    /// - Parameters:
    ///   - plan: what to measure; it must fit the model
    ///   - host: what reads clock, memory and heat
    ///   - ordinaryTokens: number of ids, the first ones, from which the prompts are drawn
    ///   - headTokens: ids of the tokens that the logits stand for, where the head was pruned; or empty
    public init(_ plan: BenchPlan, host: any BenchHost, ordinaryTokens: Int, headTokens: [Int32] = []) {
        self.plan = plan
        self.host = host
        self.ordinaryTokens = ordinaryTokens
        self.headTokens = headTokens
    }

    /// Load a model and measure it.
    ///
    /// - Parameters:
    ///   - open: what loads it; nothing holds it at the end
    ///   - stop: wish to stop, looked at before each call of the model
    ///   - onProgress: called with the number of samples done, and of all samples
    /// - Returns: the figures; nil: it was stopped
    /// - Throws: ``EngineError`` if the runtime failed, or computes no numbers
    public func measure(
        open: () throws -> any StepModel, stop: Stop = Stop(),
        onProgress: @escaping (Int, Int) -> Void = { _, _ in }
    ) throws -> BenchResult? {
        let residentBefore = host.residentBytes()
        let thermalBefore = host.thermal()
        let begun = host.clockNanos()
        let cache = try KeptCache(open())
        let loadS = host.seconds(since: begun)
        let resident = host.residentBytes()
        let samples = BenchSamples(plan, host, onProgress)
        do {
            let reader = BenchReader(cache, headTokens, ordinaryTokens, stop)
            let firstCallS = try samples.firstTokenS(reader, plan.promptLengths[0])
            // No figure counts it: what computes no numbers has no speed.
            try reader.requireNumbers()
            return BenchResult(
                loadS: loadS,
                residentBeforeBytes: residentBefore,
                residentBytes: resident,
                peakResidentBytes: host.peakResidentBytes(),
                firstCallTokens: plan.promptLengths[0],
                firstCallS: firstCallS,
                prefill: try plan.promptLengths.map { try samples.prefill(reader, $0) },
                decode: try plan.contexts.map { try samples.decode(reader, $0) },
                thermalBefore: thermalBefore,
                thermalAfter: host.thermal())
        } catch is BenchStopped {
            return nil
        }
    }
}

private struct BenchStopped: Error {}

// A clock may not have moved.
private let leastS = 1e-9

extension BenchHost {
    fileprivate func seconds(since begun: UInt64) -> Double { Double(clockNanos() &- begun) / 1e9 }
}

/// Reads prompts, the beginnings of one sequence of ordinary tokens, and takes the likeliest token.
private final class BenchReader {
    private let cache: KeptCache
    private let headTokens: [Int32]
    private let ordinaryTokens: Int
    private let stop: Stop
    private var isSound = true

    init(_ cache: KeptCache, _ headTokens: [Int32], _ ordinaryTokens: Int, _ stop: Stop) {
        self.cache = cache
        self.headTokens = headTokens
        self.ordinaryTokens = ordinaryTokens
        self.stop = stop
    }

    func prompt(_ tokens: Int) -> [Int32] {
        var random = SeededRandom(seed: 0)
        return (0..<tokens).map { _ in Int32(random.next() * Double(ordinaryTokens)) }
    }

    func rewind(to position: Int) throws { try cache.rewind(to: position) }

    func next(_ ids: [Int32]) throws -> Int32 {
        guard let logits = try cache.read(ids, stop: stop) else { throw BenchStopped() }
        let count = min(logits.count, headTokens.isEmpty ? cache.vocabSize : headTokens.count)
        var place = 0
        for id in 0..<count where logits[id] > logits[place] { place = id }
        isSound = logits[..<count].allSatisfy(\.isFinite)
        return headTokens.isEmpty ? Int32(place) : headTokens[place]
    }

    func requireNumbers() throws {
        if isSound { return }
        throw EngineError(
            "the logits are not finite numbers", hint: "Verify the bundle on this phone.")
    }
}

private final class BenchSamples {
    private let plan: BenchPlan
    private let host: any BenchHost
    private let onProgress: (Int, Int) -> Void
    private var done = 0

    init(_ plan: BenchPlan, _ host: any BenchHost, _ onProgress: @escaping (Int, Int) -> Void) {
        self.plan = plan
        self.host = host
        self.onProgress = onProgress
    }

    func prefill(_ reader: BenchReader, _ tokens: Int) throws -> PrefillFigures {
        let samples = try counted { try firstTokenS(reader, tokens) }
        let speeds = samples.map { Double(tokens) / max($0, leastS) }
        return PrefillFigures(
            tokens: tokens, firstTokenS: Spread(of: samples), tokensPerS: Spread(of: speeds))
    }

    /// Fill the cache once, then decode from there again and again.
    func decode(_ reader: BenchReader, _ context: Int) throws -> DecodeFigures {
        try reader.rewind(to: 0)
        let first = try reader.next(reader.prompt(context))
        let speeds = try counted {
            try reader.rewind(to: context)
            var token = first
            let begun = host.clockNanos()
            for _ in 0..<plan.decodeTokens { token = try reader.next([token]) }
            return Double(plan.decodeTokens) / max(host.seconds(since: begun), leastS)
        }
        return DecodeFigures(context: context, tokensPerS: Spread(of: speeds))
    }

    /// Return the time that filling an empty cache takes until the first token is chosen.
    func firstTokenS(_ reader: BenchReader, _ tokens: Int) throws -> Double {
        try reader.rewind(to: 0)
        let prompt = reader.prompt(tokens)
        let begun = host.clockNanos()
        _ = try reader.next(prompt)
        return host.seconds(since: begun)
    }

    /// Take the samples of a figure; the first of them does not count.
    private func counted(_ take: () throws -> Double) throws -> [Double] {
        try (0...plan.samples).map { _ in
            let sample = try take()
            done += 1
            onProgress(done, plan.allSamples)
            return sample
        }.suffix(plan.samples)
    }
}
