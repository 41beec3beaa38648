import Foundation

private let least = 1e-30
private let reportVersion = 1

/// What golden calls gave, beside their limits.
public struct GoldenVerdict: Sendable, Equatable {
    /// Mean KL from the golden data, in nats; infinite where there are no numbers.
    public let klMean: Double

    /// KL of the worst call, in nats.
    public let klWorst: Double

    /// Number of calls with another likeliest token, of those with a clear one.
    public let swapped: Int

    /// Number of calls whose probabilities are not finite, or do not add up to 1.
    public let unsound: Int

    /// The first call out of bounds, in words; nil: none is.
    public let firstBeyond: String?

    /// How far off all of it may be.
    public let limits: GoldenLimits

    /// Whether this phone computes what the exporter's machine does.
    public var isGreen: Bool {
        klMean <= limits.klMean && klWorst <= limits.klWorst && swapped == 0 && unsound == 0
    }

    /// Return plain data, null where a figure is infinite.
    public func json() -> JsonObject {
        [
            "green": .bool(isGreen),
            "kl_mean": finite(klMean),
            "kl_worst": finite(klWorst),
            "top1_swapped": .number(JsonNumber(swapped)),
            "unsound": .number(JsonNumber(unsound)),
            "first_beyond": firstBeyond.map { .text($0) } ?? .null,
        ]
    }
}

extension Golden {
    /// Compare what was measured with golden answers, as the desktop does with the report.
    ///
    /// - Parameter measured: a measurement of each call, in their order
    public func judge(_ measured: [Measured]) -> GoldenVerdict {
        precondition(measured.map(\.call) == answers.map(\.call), "expected a measurement of each call")
        let kl = zip(answers, measured).map { divergence($0, $1) }
        let swapped = answers.indices.filter { isSwapped(answers[$0], measured[$0], limits.margin) }
        let unsound = measured.indices.filter { !measured[$0].addsUp }
        let beyond = (swapped + unsound + kl.indices.filter { kl[$0] > limits.klWorst }).min()
        return GoldenVerdict(
            klMean: kl.reduce(0, +) / Double(kl.count),
            klWorst: kl.reduce(0) { max($0, $1) },
            swapped: swapped.count,
            unsound: unsound.count,
            firstBeyond: beyond.map { "\(answers[$0].call.named), call \($0 + 1)" },
            limits: limits)
    }

    /// Return the report that `llama-export verify --device-report` reads.
    ///
    /// - Parameters:
    ///   - measured: a measurement of each call, in their order
    ///   - device: what the phone says of itself, such as its model and system; at most 16 short texts
    ///   - runtime: what ran the artifact here, with its version
    ///   - manifestSha256: SHA-256 of the bundle's manifest.json, in hex
    public func report(
        _ measured: [Measured], device: KeyValuePairs<String, String>, runtime: String,
        manifestSha256: String
    ) -> JsonObject {
        [
            "format_version": .number(JsonNumber(reportVersion)),
            "device": .object(JsonObject(device.map { ($0.key, .text($0.value)) })),
            "runtime": .text(runtime),
            "manifest_sha256": .text(manifestSha256),
            "verdict": .object(judge(measured).json()),
            "positions": .array(measured.map { .object($0.json()) }),
        ]
    }
}

extension Measured {
    fileprivate var all: [Double] { restLogprob.map { logprobs + [$0] } ?? logprobs }

    fileprivate var addsUp: Bool { best != nil && addUp(logprobs, restLogprob) }

    fileprivate func json() -> JsonObject {
        [
            "at": .number(JsonNumber(call.at)),
            "logprobs": .array(logprobs.map(finite)),
            "rest_logprob": restLogprob.map(finite) ?? .null,
            "best": best.map { .number(JsonNumber($0)) } ?? .null,
        ]
    }
}

/// Return the KL from the golden answer, in nats; infinite where nothing can be compared.
private func divergence(_ answer: GoldenAnswer, _ measured: Measured) -> Double {
    let expected = answer.restLogprob.map { answer.logprobs + [$0] } ?? answer.logprobs
    let found = measured.all
    if !measured.addsUp || found.count != expected.count { return .infinity }
    // Both are rounded, so neither adds up to 1 exactly.
    let expectedSum = expected.reduce(0) { $0 + exp($1) }
    let foundSum = found.reduce(0) { $0 + exp($1) }
    let kl = zip(expected, found).reduce(0.0) { sum, pair in
        let one = exp(pair.0) / expectedSum
        return sum + one * log(max(one, least) / max(exp(pair.1) / foundSum, least))
    }
    return max(kl, 0)
}

private func isSwapped(_ answer: GoldenAnswer, _ measured: Measured, _ margin: Double) -> Bool {
    let second = answer.logprobs.count > 1 ? answer.logprobs[1] : -.infinity
    return answer.logprobs[0] - second > margin && measured.best != answer.places[0]
}

private func finite(_ value: Double) -> Json { JsonNumber(value).map { .number($0) } ?? .null }
