// Below it no token but the likeliest has a share in float32: drawing is taking the likeliest.
private let leastTemperature = 1e-6
// Wider than the rounding of two shares that lie on the two sides of a bound.
private let slack: Float = 1e-4
// A positive float32 without these bits: its exponent and three bits of its fraction.
private let bucketShift: UInt32 = 20
private let buckets = Int(Float(1).bitPattern >> bucketShift) + 1

/// Draws the next token from logits: temperature, top-k, top-p and min-p, in that order, which is that of
/// Hugging Face's `generate`. The penalty comes before them: ``penalise(_:ids:penalty:)``.
///
/// It keeps buffers of its own and belongs to one actor.
public final class Sampler {
    /// Number V of logits.
    public let vocabSize: Int

    // A token's share is its ratio to the likeliest's probability.
    private let shares: UnsafeMutableBufferPointer<Float>
    private let ids: UnsafeMutableBufferPointer<Int32>
    private var kept = 0

    /// Make room for logits.
    ///
    /// - Parameter vocabSize: number V of logits, at least 1
    public init(vocabSize: Int) {
        precondition(vocabSize > 0, "expected a vocabulary, found \(vocabSize) tokens")
        self.vocabSize = vocabSize
        shares = .allocate(capacity: vocabSize)
        ids = .allocate(capacity: vocabSize)
        shares.initialize(repeating: 0)
        ids.initialize(repeating: 0)
    }

    deinit {
        shares.deallocate()
        ids.deallocate()
    }

    /// Draw a token id.
    ///
    /// - Parameters:
    ///   - logits: logits `[V]` with the repetition penalty already applied; -infinity where there is none
    ///   - u: random number from 0 to 1, without 1; not looked at where the temperature is 0
    /// - Throws: ``EngineError`` if a logit is NaN or infinite, or none is finite
    public func draw(_ logits: [Float], _ sampling: Sampling, u: Double) throws -> Int32 {
        try logits.withUnsafeBufferPointer { try draw($0, sampling, u: u) }
    }

    /// Draw a token id; as the other form.
    public func draw(_ logits: UnsafeBufferPointer<Float>, _ sampling: Sampling, u: Double) throws -> Int32 {
        precondition(logits.count == vocabSize, "expected \(vocabSize) logits, found \(logits.count)")
        let likeliest = try soundLikeliest(logits)
        if sampling.temperature == 0 { return Int32(likeliest) }
        precondition(u >= 0 && u < 1, "expected a random number from 0 to 1, found \(u)")
        let all = fillShares(logits, largest: logits[likeliest], temperature: sampling.temperature)
        choose(logits, sampling, all)
        return drawKept(minP: Float(sampling.minP), u)
    }

    /// Fill each token's share and return their sum.
    private func fillShares(
        _ logits: UnsafeBufferPointer<Float>, largest: Float, temperature: Double
    ) -> Double {
        // Not infinite, which would make NaN of the minus infinity of a token that there is not.
        let scale = Float(min(max(temperature, leastTemperature), Double(Float.greatestFiniteMagnitude)))
        // No branch and no call: the compiler makes vectors of both loops.
        for id in 0..<vocabSize {
            shares[id] = expOfNegative((logits[id] - largest) / scale)
        }
        var sums = SIMD8<Double>.zero
        let whole = vocabSize & ~7
        for id in stride(from: 0, to: whole, by: 8) {
            for lane in 0..<8 { sums[lane] += Double(shares[id + lane]) }
        }
        return shares[whole...].reduce(sums.sum()) { $0 + Double($1) }
    }

    /// Fill ``ids`` with those that top-k and top-p leave; likeliest first where one of them is set.
    private func choose(_ logits: UnsafeBufferPointer<Float>, _ sampling: Sampling, _ all: Double) {
        let hasTopK = sampling.topK > 0 && sampling.topK < vocabSize
        let hasTopP = sampling.topP < 1
        // Those below this have less together than top-p leaves out.
        let least = hasTopP && !hasTopK ? Float((1 - sampling.topP) * all / Double(vocabSize)) : 0
        gather(least)
        if !hasTopK && !hasTopP { return }
        if hasTopK {
            narrow(count: sampling.topK, sum: .infinity)
        } else {
            narrow(count: vocabSize, sum: sampling.topP * all)
        }
        rank(logits)
        if hasTopK { kept = sampling.topK }
        if hasTopP { kept = crossing(sampling.topP * (hasTopK ? sumOfKept() : all)) }
    }

    /// Fill ``ids`` with those of at least a share, in their order.
    private func gather(_ least: Float) {
        kept = 0
        for id in 0..<vocabSize where shares[id] >= least {
            ids[kept] = Int32(truncatingIfNeeded: id)
            kept += 1
        }
    }

    /// Keep the likeliest ids that are so many, or have such a sum, and not many more.
    ///
    /// Counting by exponents is enough, and sorting all of 128,256 takes ten times as long.
    private func narrow(count: Int, sum: Double) {
        let counts = UnsafeMutableBufferPointer<(count: Int, sum: Double)>.allocate(capacity: buckets)
        defer { counts.deallocate() }
        counts.initialize(repeating: (0, 0))
        for at in 0..<kept {
            let share = shares[Int(ids[at])]
            let bucket = Int(share.bitPattern >> bucketShift)
            counts[bucket].count += 1
            counts[bucket].sum += Double(share)
        }
        var bucket = buckets
        var found = (count: 0, sum: 0.0)
        while bucket > 0 && found.count < count && found.sum < sum {
            bucket -= 1
            found.count += counts[bucket].count
            found.sum += counts[bucket].sum
        }
        let bound = Float(bitPattern: UInt32(bucket) << bucketShift) * (1 - slack)
        let before = kept
        kept = 0
        for at in 0..<before where shares[Int(ids[at])] >= bound {
            ids[kept] = ids[at]
            kept += 1
        }
    }

    /// Put the kept ids in order, likeliest first; of equal ones the lower id first.
    private func rank(_ logits: UnsafeBufferPointer<Float>) {
        // Ascending keys are descending logits, and ascending ids where those are equal.
        var keys = (0..<kept).map { Int64(~ordered(logits[Int(ids[$0])])) << 32 | Int64(ids[$0]) }
        keys.sort()
        for at in 0..<kept { ids[at] = Int32(truncatingIfNeeded: keys[at]) }
    }

    private func sumOfKept() -> Double {
        var sum = 0.0
        for at in 0..<kept { sum += Double(shares[Int(ids[at])]) }
        return sum
    }

    /// Return how many of the kept ids reach a sum; the one that crosses the line belongs to them.
    private func crossing(_ wanted: Double) -> Int {
        var sum = 0.0
        for at in 0..<kept {
            sum += Double(shares[Int(ids[at])])
            if sum >= wanted { return at + 1 }
        }
        return kept
    }

    private func drawKept(minP: Float, _ u: Double) -> Int32 {
        var sum = 0.0
        for at in 0..<kept {
            let share = shares[Int(ids[at])]
            if share >= minP { sum += Double(share) }
        }
        let wanted = u * sum
        var passed = 0.0
        var last = ids[0]
        for at in 0..<kept {
            let share = shares[Int(ids[at])]
            if share < minP { continue }
            passed += Double(share)
            last = ids[at]
            if passed > wanted { return last }
        }
        // A product that is rounded up to the sum draws the last one that has a share.
        return last
    }
}

/// Apply CTRL's repetition penalty to logits `[V]`, in place.
///
/// - Parameters:
///   - ids: tokens that the text already holds, each given once; those outside of V are passed over
///   - penalty: divisor of positive logits, and factor of negative ones
public func penalise(_ logits: inout [Float], ids: some Sequence<Int32>, penalty: Double) {
    if penalty == 1 { return }
    let factor = Float(penalty)
    for id in ids where Int(id) < logits.count {
        let found = logits[Int(id)]
        logits[Int(id)] = found > 0 ? found / factor : found * factor
    }
}
