/// What is measured; the defaults are those of `llama-export bench`.
public struct BenchPlan: Sendable, Equatable {
    /// Numbers of tokens of the prompts that an empty cache is filled with.
    public let promptLengths: [Int]

    /// Numbers of positions in the cache when decoding begins.
    public let contexts: [Int]

    /// Number of tokens decoded for one sample.
    public let decodeTokens: Int

    /// Number of samples of each figure that count; one more comes first.
    public let samples: Int

    /// Number of samples, those that do not count too.
    public var allSamples: Int { (samples + 1) * (promptLengths.count + contexts.count) }

    /// - Parameters:
    ///   - promptLengths: numbers of tokens; at least one
    ///   - contexts: numbers of positions
    ///   - decodeTokens: number of tokens, at least 1
    ///   - samples: number of samples that count, at least 1
    public init(promptLengths: [Int], contexts: [Int], decodeTokens: Int, samples: Int) {
        self.promptLengths = promptLengths
        self.contexts = contexts
        self.decodeTokens = decodeTokens
        self.samples = samples
    }

    /// Plan what a context has room for.
    ///
    /// - Parameters:
    ///   - maxContext: number of positions
    ///   - quick: whether to measure one length with fewer samples
    /// - Throws: ``BadInput`` if the context is too short to measure anything
    public static func fitting(_ maxContext: Int, quick: Bool = false) throws -> BenchPlan {
        let decodeTokens = quick ? 8 : 16
        let room = maxContext - decodeTokens
        if room < 1 {
            throw BadInput(
                "the context: expected more than \(decodeTokens) positions to measure, found \(maxContext)",
                hint: "Choose a larger context.")
        }
        let lengths = (quick ? [128] : [128, 512]).filter { $0 <= maxContext }
        let contexts = (quick ? [128] : [128, 1024]).filter { $0 <= room }
        return BenchPlan(
            promptLengths: lengths.isEmpty ? [maxContext] : lengths,
            contexts: contexts.isEmpty ? [room] : contexts,
            decodeTokens: decodeTokens,
            samples: quick ? 2 : 5)
    }
}

/// The samples of one figure, summarised.
public struct Spread: Sendable, Equatable {
    /// The middle one, or the mean of the two in the middle.
    public let median: Double

    /// The smallest.
    public let least: Double

    /// The largest.
    public let most: Double

    init(median: Double, least: Double, most: Double) {
        self.median = median
        self.least = least
        self.most = most
    }

    /// Summarise samples `[n]`, n at least 1.
    init(of samples: [Double]) {
        let sorted = samples.sorted()
        let (lower, upper) = (sorted[(sorted.count - 1) / 2], sorted[sorted.count / 2])
        self.init(median: (lower + upper) / 2, least: sorted[0], most: sorted[sorted.count - 1])
    }
}
