import Foundation

/// What this phone computed after one golden call.
public struct Measured: Sendable {
    public let call: GoldenCall

    /// Logarithms of probability `[k]` of the golden answer's places, in its order; NaN: no finite number.
    public let logprobs: [Double]

    /// That of all other places together; nil: there are no others; NaN as above.
    public let restLogprob: Double?

    /// This phone's own likeliest place; nil: none.
    public let best: Int?
}

extension Golden {
    /// Make a bundle's golden calls and keep what this phone computes.
    ///
    /// - Parameters:
    ///   - cache: cache of the loaded artifact, which forgets what it held
    ///   - logitCount: number of logits, less than the vocabulary where the head was pruned; nil: the
    ///     vocabulary
    ///   - stop: wish to stop, looked at before each call of the model
    ///   - onProgress: called before each call, with the number of calls made so far, and of all
    /// - Returns: measurements in the order of the calls; nil: it was stopped
    /// - Throws: ``BundleError`` if the data speak of places that the artifact has not; ``PromptError`` if
    ///   the context is too short for the calls; ``EngineError`` if the runtime failed
    public func run(
        _ cache: KeptCache, logitCount: Int? = nil, stop: Stop = Stop(),
        onProgress: (Int, Int) -> Void = { _, _ in }
    ) throws -> [Measured]? {
        let count = logitCount ?? cache.vocabSize
        if let beyond = answers.lazy.flatMap(\.places).first(where: { $0 >= count }) {
            throw BundleError(
                "\(goldenName): expected places of \(count) logits, found \(beyond)",
                hint: "It belongs to another model: get the whole bundle again.")
        }
        var measured = [Measured]()
        for (number, answer) in answers.enumerated() {
            onProgress(number, answers.count)
            try cache.rewind(to: answer.call.first)
            guard let logits = try cache.read(ids(of: answer.call), stop: stop) else { return nil }
            if logits.count < count {
                throw EngineError(
                    "expected \(count) logits, found \(logits.count)",
                    hint: "The artifact belongs to another model: get the whole bundle again.")
            }
            measured.append(measure(answer, UnsafeBufferPointer(rebasing: logits[..<count])))
        }
        return measured
    }
}

/// Measure logits `[V]` at the places of a golden answer.
func measure(_ answer: GoldenAnswer, _ logits: UnsafeBufferPointer<Float>) -> Measured {
    var isNamed = [Bool](repeating: false, count: logits.count)
    for place in answer.places { isNamed[place] = true }
    var largest = -Float.infinity
    var best: Int?
    for place in 0..<logits.count where logits[place] > largest {
        largest = logits[place]
        best = place
    }
    var (named, others) = (0.0, 0.0)
    for place in 0..<logits.count {
        let share = exp(Double(logits[place]) - Double(largest))
        if isNamed[place] { named += share } else { others += share }
    }
    let total = log(named + others)
    let logprobs = answer.places.map { rounded(Double(logits[$0]) - Double(largest) - total) }
    let hasRest = logits.count != answer.places.count
    let rest = hasRest ? rounded(log(max(others, leastRest)) - total) : nil
    return Measured(call: answer.call, logprobs: logprobs, restLogprob: rest, best: best)
}

private let leastRest = 1e-300
private let digits = 1e5

/// To five digits; NaN where it is no finite number. The desktop judges what is written.
private func rounded(_ value: Double) -> Double {
    guard abs(value) < Double.greatestFiniteMagnitude / digits else { return .nan }
    return (value * digits).rounded(.toNearestOrEven) / digits
}
