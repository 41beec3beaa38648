/// How the next token is drawn.
public struct Sampling: Sendable, Equatable {
    /// Divisor of the logits; 0 takes the likeliest token.
    public private(set) var temperature: Double = 0.7

    /// Probability that the likeliest tokens, from which one is drawn, have together.
    public private(set) var topP: Double = 0.95

    /// Number of the likeliest tokens from which one is drawn; 0: all.
    public private(set) var topK: Int = 0

    /// Seed of the random numbers, the same for the same text; nil: a fresh one.
    public private(set) var seed: Int64?

    /// Smallest probability of a token that may be drawn, as a share of the likeliest's.
    public private(set) var minP: Double = 0.0

    /// Divisor of the logits of tokens that the text already holds (factor, where they are negative);
    /// 1 changes nothing.
    public private(set) var repetitionPenalty: Double = 1.0

    /// The settings where nobody chose.
    public static let defaults = Sampling()

    /// The likeliest token, always.
    public static let greedy = Sampling.defaults.takingLikeliest()

    private init() {}

    /// Check settings; what is left out is as in ``defaults``.
    ///
    /// - Parameters:
    ///   - temperature: divisor of the logits, at least 0
    ///   - topP: probability above 0, at most 1
    ///   - topK: number of tokens, at least 0
    ///   - seed: seed, at least 0; nil: a fresh one for each text
    ///   - minP: share from 0 to 1
    ///   - repetitionPenalty: divisor above 0
    /// - Throws: ``BadInput`` if a value is out of its range; all such values are named
    public init(
        temperature: Double = 0.7, topP: Double = 0.95, topK: Int = 0, seed: Int64? = nil,
        minP: Double = 0, repetitionPenalty: Double = 1
    ) throws {
        self.temperature = temperature
        self.topP = topP
        self.topK = topK
        self.seed = seed
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        let checks: [(isSound: Bool, expected: String, found: String)] = [
            (temperature >= 0 && temperature < .infinity, "temperature >= 0", "\(temperature)"),
            (topP > 0 && topP <= 1, "0 < top-p <= 1", "\(topP)"),
            (topK >= 0, "a whole top-k >= 0", "\(topK)"),
            ((seed ?? 0) >= 0, "a whole seed >= 0", "\(seed ?? 0)"),
            (minP >= 0 && minP <= 1, "0 <= min-p <= 1", "\(minP)"),
            (
                repetitionPenalty > 0 && repetitionPenalty < .infinity,
                "repetition penalty > 0", "\(repetitionPenalty)"
            ),
        ]
        let faults = checks.filter { !$0.isSound }.map { "\($0.expected), found \($0.found)" }
        if !faults.isEmpty {
            throw BadInput(
                "expected " + faults.joined(separator: "; expected "), hint: "Change the settings.",
                kind: .setting)
        }
    }

    /// Return the same sampling with a seed: its own, or a fresh one of 32 bits where it has none.
    public func withSeed() -> Sampling {
        seed == nil ? with(seed: Int64(UInt32.random(in: .min ... .max))) : self
    }

    /// Return the same sampling with another seed, at least 0.
    func with(seed: Int64) -> Sampling {
        var copy = self
        copy.seed = seed
        return copy
    }

    /// Return the same sampling at the temperature 0.
    func takingLikeliest() -> Sampling {
        var copy = self
        copy.temperature = 0
        return copy
    }
}
