private let version = 1
private let mostCalls = 1024
private let mostIds = 4096
private let mostTop = 64
private let logarithms = -1e5...0.1
private let restKey = "rest_logprob"
private let shownCharacters = 80

/// Reads a golden.json, and refuses calls that cannot be made.
struct GoldenReader {
    static let hint = "Export the bundle again, or update the app."

    private let top: JsonFields

    init(_ top: JsonFields) { self.top = top }

    /// - Throws: ``BadInput`` if a field is wrong
    func read() throws -> Golden {
        let found = try top.int("format_version")
        if found != version { throw fault(top, "format_version", "\(version)", "\(found)") }
        let rewind = try top.fields("rewind")
        let limits = try top.fields("limits")
        let answers = try top.list("positions")
        if !(1...mostCalls).contains(answers.count) {
            throw fault(top, "positions", "1 to \(mostCalls)", "\(answers.count)")
        }
        let golden = Golden(
            target: try top.text("target"),
            runtime: try top.text("runtime"),
            promptIds: try ids(top, "prompt_ids"),
            rewindTo: try rewind.int("to"),
            rewindIds: try ids(rewind, "ids"),
            limits: GoldenLimits(
                klMean: try limit(limits, "kl_mean"),
                klWorst: try limit(limits, "kl_worst"),
                margin: try limit(limits, "margin")),
            answers: try answers.enumerated().map { at, raw in
                try answer(raw.fields(where: "\(top.place): positions[\(at)]"))
            })
        try requireCallable(golden)
        return golden
    }

    private func answer(_ raw: JsonFields) throws -> GoldenAnswer {
        let key = try raw.text("text")
        guard let text = GoldenText.allCases.first(where: { sameBytes($0.rawValue, key) }) else {
            throw fault(raw, "text", "prompt or rewind", key)
        }
        let call = GoldenCall(text: text, first: try raw.int("from"), at: try raw.int("at"))
        let top = try raw.list("top")
        if !(1...mostTop).contains(top.count) {
            throw fault(raw, "top", "1 to \(mostTop) pairs", "\(top.count)")
        }
        let pairs = try top.map { try pair($0, raw) }
        let places = pairs.map(\.place)
        if Set(places).count != places.count { throw fault(raw, "top", "places that differ", "one twice") }
        let rest = raw.contains(restKey) ? try logprob(raw.double(restKey), raw, restKey) : nil
        let logprobs = pairs.map(\.logprob)
        if !addUp(logprobs, rest) { throw fault(raw, "top", "probabilities that add up to 1", "others") }
        return GoldenAnswer(call: call, places: places, logprobs: logprobs, restLogprob: rest)
    }

    private func pair(_ value: Json, _ raw: JsonFields) throws -> (place: Int, logprob: Double) {
        guard let items = value.asArray, items.count == 2,
            let place = items[0].asNumber.flatMap({ Int32($0.text) }), place >= 0,
            let found = items[1].asNumber
        else {
            throw fault(raw, "top", "pairs of a place and a logarithm", value.kind)
        }
        return (Int(place), try logprob(found.double(), raw, "top"))
    }

    private func logprob(_ value: Double, _ raw: JsonFields, _ key: String) throws -> Double {
        if !logarithms.contains(value) { throw fault(raw, key, "a logarithm of probability", "\(value)") }
        return value
    }

    private func limit(_ limits: JsonFields, _ key: String) throws -> Double {
        let found = try limits.double(key)
        if found < 0 { throw fault(limits, key, "at least 0", "\(found)") }
        return found
    }

    private func ids(_ owner: JsonFields, _ key: String) throws -> [Int32] {
        let found = try owner.list(key).map { $0.asNumber.flatMap { Int32($0.text) } ?? -1 }
        if !(1...mostIds).contains(found.count) || found.contains(where: { $0 < 0 }) {
            throw fault(owner, key, "1 to \(mostIds) token ids", "another list of \(found.count)")
        }
        return found
    }

    /// Refuse positions outside the texts, or beyond what was read.
    private func requireCallable(_ golden: Golden) throws {
        if !(0...golden.promptIds.count).contains(golden.rewindTo) {
            throw fault(
                try top.fields("rewind"), "to", "at most \(golden.promptIds.count)", "\(golden.rewindTo)")
        }
        var held = 0
        for (number, answer) in golden.answers.enumerated() {
            let call = answer.call
            let length =
                switch call.text {
                case .prompt: golden.promptIds.count
                case .rewind: golden.rewindTo + golden.rewindIds.count
                }
            if call.first < 0 || call.first > min(held, call.at) || call.at >= length {
                throw fault(
                    top, "positions[\(number)]", "positions that were read", "\(call.first) to \(call.at)")
            }
            held = call.at + 1
        }
    }

    private func fault(_ owner: JsonFields, _ key: String, _ expected: String, _ found: String) -> BadInput {
        let shown = found.prefix(shownCharacters)
        return BadInput("\(owner.at(key)): expected \(expected), found \(shown)", hint: "")
    }
}
