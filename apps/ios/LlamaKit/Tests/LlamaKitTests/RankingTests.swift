import Foundation
import Testing

@testable import LlamaKit

/// Numbers that are the same in every run, for tests that need many.
struct Dice: RandomNumberGenerator {
    private var random: SeededRandom

    init(_ seed: Int) {
        random = SeededRandom(seed: Int64(seed))
    }

    mutating func next() -> UInt64 {
        UInt64(random.next() * 0x1p32) << 32 | UInt64(random.next() * 0x1p32)
    }

    /// Return a whole number from 0 to below a bound.
    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }

    /// Return a number from 0 to 1, without 1.
    mutating func share() -> Double { random.next() }

    /// Return a number of the normal distribution.
    mutating func normal() -> Double {
        (-2 * log(1 - share())).squareRoot() * cos(2 * .pi * share())
    }
}

@Suite("A large vocabulary")
struct RankingTests {
    @Test(arguments: 0..<60)
    func isRankedAsAPlainSortRanksIt(round: Int) throws {
        var dice = Dice(round)
        let size = 1 + dice.below(round < 50 ? 3_000 : 20_000)
        let spread = 0.2 + 5 * dice.share()
        let steps = round % 3 == 0 ? 4.0 : 1e6
        let given = (0..<size).map { _ in Float((dice.normal() * spread * steps).rounded() / steps) }
        let sampling = try Sampling(
            temperature: 0.3 + dice.share(), topP: dice.below(2) == 0 ? 1 : 0.5 + dice.share() / 2,
            topK: dice.below(2) == 0 ? 0 : 1 + dice.below(500),
            minP: dice.below(2) == 0 ? 0 : dice.share() / 10)
        let sampler = Sampler(vocabSize: size)
        for _ in 0..<3 {
            let u = dice.share()
            let expected = plainDraw(given, sampling, u)
            #expect(try Int(sampler.draw(given, sampling, u: u)) == expected, "\(size): \(sampling), \(u)")
        }
    }

    private func plainDraw(_ logits: [Float], _ sampling: Sampling, _ u: Double) -> Int {
        let top = logits.max() ?? 0
        let shares = logits.map { Float(exp(Double(($0 - top) / Float(sampling.temperature)))) }
        var ids = Array(logits.indices)
        if (1..<logits.count).contains(sampling.topK) || sampling.topP < 1 {
            ids.sort { shares[$0] != shares[$1] ? shares[$0] > shares[$1] : $0 < $1 }
        }
        if sampling.topK > 0 { ids = Array(ids.prefix(sampling.topK)) }
        if sampling.topP < 1 {
            let wanted = sampling.topP * ids.reduce(0) { $0 + Double(shares[$1]) }
            ids = Array(ids.prefix(place(ids, shares) { $0 >= wanted } + 1))
        }
        ids = ids.filter { shares[$0] >= Float(sampling.minP) }
        let wanted = u * ids.reduce(0) { $0 + Double(shares[$1]) }
        return ids[place(ids, shares) { $0 > wanted }]
    }

    /// Return the first place where the sum of the shares so far is enough.
    private func place(_ ids: [Int], _ shares: [Float], _ isEnough: (Double) -> Bool) -> Int {
        var sum = 0.0
        for (place, id) in ids.enumerated() {
            sum += Double(shares[id])
            if isEnough(sum) { return place }
        }
        return ids.count - 1
    }
}

/// What drawing a token takes. It is a measurement, and no test: a busy machine would fail it.
///
///     LLAMA_MEASURE=1 swift test -c release -Xswiftc -enable-testing --filter SamplerMeasurement
@Suite("What drawing takes", .enabled(if: ProcessInfo.processInfo.environment["LLAMA_MEASURE"] != nil))
struct SamplerMeasurement {
    @Test(arguments: [4096, 128_256])
    func aToken(vocabSize: Int) throws {
        let settings = try [
            ("greedy", Sampling.greedy), ("the defaults", .defaults),
            ("top-k 50", Sampling(topP: 1, topK: 50)),
            ("all filters", Sampling(temperature: 0.7, topP: 0.9, topK: 50, minP: 0.05)),
            ("no filter", Sampling(topP: 1)),
        ]
        for peak in [16.0, 0] {
            let logits = (0..<8).map { Self.logits(vocabSize, seed: $0, peak: peak) }
            for (name, sampling) in settings {
                let sampler = Sampler(vocabSize: vocabSize)
                var best = Double.infinity
                for round in 0..<40 {
                    let begun = ContinuousClock.now
                    _ = try sampler.draw(logits[round % 8], sampling, u: 0.4)
                    best = min(best, (ContinuousClock.now - begun) / .microseconds(1))
                }
                print("\(vocabSize) ids, \(peak == 0 ? "flat" : "as in a text"), \(name): \(Int(best)) us")
            }
        }
    }

    /// As in a text, few tokens are likely, unless there is no peak.
    private static func logits(_ vocabSize: Int, seed: Int, peak: Double) -> [Float] {
        var dice = Dice(seed)
        var logits = (0..<vocabSize).map { _ in Float(2 * dice.normal()) }
        if peak > 0 {
            for rank in 0..<20 { logits[dice.below(3840)] = Float(peak - Double(rank) / 2) }
        }
        return logits
    }
}
