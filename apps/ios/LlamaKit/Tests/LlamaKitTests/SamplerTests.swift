import Foundation
import Testing

@testable import LlamaKit

/// Read settings as the vectors write them; what is left out has its default.
func samplingOf(_ fields: JsonFields) throws -> Sampling {
    func number(_ key: String, _ known: Double) throws -> Double {
        switch fields.json[key] {
        case .number(let number): return number.double()
        case .text(let name): return try #require(Double(name), "\(name)")
        default: return known
        }
    }
    let names: Set = ["temperature", "top_p", "top_k", "seed", "min_p", "repetition_penalty"]
    #expect(names.isSuperset(of: fields.json.keys), "\(fields.json.keys)")
    let known = Sampling.defaults
    return try Sampling(
        temperature: number("temperature", known.temperature), topP: number("top_p", known.topP),
        topK: fields.contains("top_k") ? fields.int("top_k") : known.topK,
        seed: fields.contains("seed") ? fields.long("seed") : nil, minP: number("min_p", known.minP),
        repetitionPenalty: number("repetition_penalty", known.repetitionPenalty))
}

@Suite("Drawing tokens")
struct SamplerTests {
    private let vectors: Vectors
    private let logits: [String: [Float]]

    init() throws {
        vectors = try Vectors("sampler.json")
        var logits: [String: [Float]] = [:]
        try vectors.each("logits") { logits[try $0.text("name")] = try Self.floats($0, "values") }
        self.logits = logits
    }

    private static func floats(_ fields: JsonFields, _ key: String) throws -> [Float] {
        try fields.list(key).map { $0.asNumber.map { Float($0.double()) } ?? -.infinity }
    }

    private func given(_ entry: JsonFields) throws -> [Float] {
        try #require(logits[try entry.text("logits")])
    }

    @Test func theDefaultsArePythons() throws {
        let defaults = try vectors.fields("defaults")
        #expect(defaults.json.entries.count == 6)
        #expect(try samplingOf(defaults) == .defaults)
    }

    @Test func everyDrawIsPythons() throws {
        try vectors.each("draw") {
            let given = try given($0)
            let drawn = try Sampler(vocabSize: given.count)
                .draw(given, samplingOf($0.fields("settings")), u: $0.double("u"))
            try #require(try Int(drawn) == $0.int("id"))
        }
    }

    @Test func aSamplerIsNotChangedByWhatItDrewBefore() throws {
        var samplers: [Int: Sampler] = [:]
        try vectors.each("draw") {
            let given = try given($0)
            let sampler = samplers[given.count] ?? Sampler(vocabSize: given.count)
            samplers[given.count] = sampler
            let drawn = try sampler.draw(given, samplingOf($0.fields("settings")), u: $0.double("u"))
            try #require(try Int(drawn) == $0.int("id"))
        }
    }

    @Test func everyPenaltyIsPythons() throws {
        try vectors.each("penalise") {
            var given = try given($0)
            let sampling = try samplingOf($0.fields("settings"))
            penalise(&given, ids: try $0.ints("ids"), penalty: sampling.repetitionPenalty)
            try #require(try given == Self.floats($0, "values"))
            let drawn = try Sampler(vocabSize: given.count).draw(given, sampling, u: $0.double("u"))
            try #require(try Int(drawn) == $0.int("id"))
        }
    }

    @Test func everySettingOutOfRangeIsRefusedInPythonsWords() throws {
        try vectors.each("refused") { entry in
            let expected = try entry.text("message")
            #expect {
                _ = try samplingOf(entry.fields("settings"))
            } throws: {
                ($0 as? BadInput)?.message == expected
            }
        }
    }

    @Test func aModelsWishesAreHeardAsPythonHearsThem() throws {
        try vectors.each("wishes") {
            let found = ModelSampling(try $0.fields("settings").json)
            try #require(try found.sampling == samplingOf($0.fields("sampling")))
        }
    }

    @Test func seedsGiveTheNumbersThatEveryPhoneGives() throws {
        try vectors.each("random") {
            var random = SeededRandom(seed: try $0.long("seed"))
            for u in try $0.list("u") { try #require(u.asNumber?.double() == random.next()) }
        }
    }

    @Test func aFreshSeedIsDrawnWhereThereIsNone() throws {
        let seeds = (0..<3).map { _ in Sampling.defaults.withSeed().seed }
        #expect(Set(seeds).count == 3)
        #expect(seeds.allSatisfy { (0...0xFFFF_FFFF).contains($0 ?? -1) })
        #expect(try Sampling(seed: 7).withSeed().seed == 7)
    }

    @Test func everyIdIsDrawnAsOftenAsItsProbabilitySays() throws {
        let given: [Float] = [0, 1, 2, 1.5]
        let weights = given.map { exp(Double($0)) }
        let sampling = try Sampling(temperature: 1, topP: 1)
        let sampler = Sampler(vocabSize: 4)
        var counts = [0, 0, 0, 0]
        let draws = 10_000
        for number in 0..<draws {
            counts[Int(try sampler.draw(given, sampling, u: (Double(number) + 0.5) / Double(draws)))] += 1
        }
        for id in 0...3 {
            let expected = weights[id] / weights.reduce(0, +)
            #expect(abs(expected - Double(counts[id]) / Double(draws)) < 1e-3)
        }
    }

    @Test func theExponentialIsThePlatformsButForTheLastBits() {
        var x: Float = 0
        while x > -87 {
            let expected = exp(Double(x))
            let error = abs(expected - Double(expOfNegative(x)))
            if error > expected * 1.3e-7 { Issue.record("\(x): \(error / expected)") }
            x -= 0.0007
        }
        #expect(expOfNegative(0) == 1)
        #expect(expOfNegative(-87.01) == 0)
        #expect(expOfNegative(-.infinity) == 0)
        #expect(expOfNegative(-.greatestFiniteMagnitude) == 0)
    }

    @Test func whatIsFarLessLikelyThanAnotherTokenIsNeverDrawn() throws {
        let given = (0..<600).map { $0 == 300 ? 0 : $0 % 2 == 0 ? -Float.infinity : -1e30 }
        let most = 1 - 0x1p-53
        for (topP, topK) in [(1.0, 0), (1, 3), (0.95, 0)] {
            let sampling = try Sampling(temperature: 1, topP: topP, topK: topK)
            #expect(try Sampler(vocabSize: 600).draw(given, sampling, u: most) == 300)
        }
        let any: [Float] = [-.infinity, 0, -.infinity]
        #expect(try Sampler(vocabSize: 3).draw(any, Sampling(topP: 1), u: 0) == 1)
        let hot = try Sampling(temperature: 1e300, topP: 1)
        #expect(try Sampler(vocabSize: 3).draw(any, hot, u: 0.99) == 1)
        #expect(try Sampler(vocabSize: 3).draw([-2, 0, 1], hot, u: 0.99) == 2)
    }

    @Test func whatIsNoNumberIsRefused() throws {
        let wrong: [(logits: [Float], message: String)] = [
            ([1, .nan, 0], "1 of 3 are NaN or infinite"),
            ([1, -.nan, 0], "1 of 3 are NaN or infinite"),
            ([.infinity, 1, .nan], "2 of 3 are NaN or infinite"),
            ([-.infinity, -.infinity], "0 of 2 are NaN or infinite, and none is finite"),
        ]
        for (logits, message) in wrong {
            #expect {
                _ = try Sampler(vocabSize: logits.count).draw(logits, .greedy, u: 0)
            } throws: {
                ($0 as? EngineError)?.message == "the logits are not finite numbers: " + message
            }
        }
    }

    @Test func ofEqualLogitsTheLowestIsTheLikeliest() throws {
        for logits: [Float] in [[-1, 2, 2], [-.infinity, -0.0, 0], [-3, -2, -2], [-1, 0, -0.0]] {
            #expect(try Sampler(vocabSize: 3).draw(logits, .greedy, u: 0) == 1, "\(logits)")
        }
    }
}
