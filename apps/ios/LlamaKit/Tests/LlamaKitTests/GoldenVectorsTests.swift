import Foundation
import Testing

@testable import LlamaKit

/// The model that the vectors' page describes.
private final class Arithmetic: StepModel {
    let vocabSize = 64
    let maxContext = 64
    private var rows = [Int](repeating: 0, count: 64)
    private let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: 64)
    private var held = 0

    deinit { logits.deallocate() }

    var interrupt: (@Sendable () -> Void)? { nil }

    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: held)
        for (at, id) in zip(position..., ids) { rows[at] = (Int(id) + 1) * (at + 7) }
        held = position + ids.count
        let state = rows[..<held].reduce(0) { (31 * $0 + $1) % 65521 }
        for id in 0..<vocabSize { logits[id] = Float(state * (id + 1) * 40503 % 65521 / 16) / 1024 }
        return UnsafeBufferPointer(logits)
    }
}

private func real(_ value: Json) -> Double { value.asNumber?.double() ?? .nan }

private func reals(_ fields: JsonFields, _ key: String) throws -> [Double] { try fields.list(key).map(real) }

/// Python's golden data, and its judgement of phones' reports, right ones and wrong ones.
@Suite("Golden data that Python knows")
struct GoldenVectorsTests {
    private let vectors: Vectors
    private let golden: Golden

    init() throws {
        vectors = try Vectors("golden.json")
        golden = try Golden.parse(Json.object(vectors.fields("golden").json).writeBytes())
    }

    private func answer(_ fields: JsonFields) throws -> GoldenAnswer {
        let pairs = try fields.list("top").compactMap(\.asArray)
        let rest = try fields.required("rest_logprob")
        return GoldenAnswer(
            call: GoldenCall(text: .prompt, first: 0, at: 0), places: pairs.map { Int(real($0[0])) },
            logprobs: pairs.map { real($0[1]) }, restLogprob: rest == .null ? nil : real(rest))
    }

    /// What a report says, as the desktop reads it; it has no names of texts.
    private func measured(_ report: JsonFields) throws -> [Measured] {
        try zip(report.list("positions"), golden.answers).map { raw, answer in
            let fields = try raw.fields(where: "positions")
            let rest = real(try fields.required("rest_logprob"))
            return Measured(
                call: GoldenCall(text: answer.call.text, first: answer.call.first, at: try fields.int("at")),
                logprobs: try reals(fields, "logprobs"),
                restLogprob: answer.restLogprob == nil ? nil : rest,
                best: fields.contains("best") ? try fields.int("best") : nil)
        }
    }

    @Test func logitsAreMeasuredAsPythonMeasuresThem() throws {
        try vectors.each("logits") { entry in
            let logits = try reals(entry, "logits").map { Float($0) }
            let answer = try answer(entry)
            let found = logits.withUnsafeBufferPointer { measure(answer, $0) }
            for (one, other) in zip(found.logprobs, try reals(entry, "logprobs")) {
                #expect(abs(one - other) < 1.01e-5)
            }
            let rest = real(try entry.required("rest_logprob"))
            #expect(rest.isNaN ? found.restLogprob == nil : abs((found.restLogprob ?? .nan) - rest) < 1.01e-5)
            #expect(try found.best == entry.int("best"))
        }
    }

    @Test func everyReportIsJudgedAsPythonJudgesIt() throws {
        var judged = [String]()
        try vectors.each("reports") { entry in
            let rows = try entry.fields("rows")
            // Where calls are missing there is no more to judge: an app's own never are.
            if !rows.contains("golden_kl_mean") { return }
            judged.append(try entry.text("name"))
            let verdict = golden.judge(try measured(entry.fields("report")))
            #expect(try verdict.isGreen == entry.bool("passed"))
            let first = entry.contains("first") ? try entry.int("first") : nil
            #expect(verdict.firstBeyond == first.map { "\(golden.answers[$0].call.named), call \($0 + 1)" })
            func value(_ key: String) throws -> Double { real(try rows.fields(key).required("value")) }
            func isNear(_ found: Double, _ key: String) throws -> Bool {
                let expected = try value(key)
                return expected.isNaN ? found.isInfinite : abs(found - expected) < 1e-6
            }
            #expect(try isNear(verdict.klMean, "golden_kl_mean"))
            #expect(try isNear(verdict.klWorst, "golden_kl_worst"))
            #expect(try value("golden_top1") == Double(verdict.swapped))
            #expect(try value("golden_sums") == Double(verdict.unsound))
        }
        #expect(judged.count > 6)
    }

    @Test func theCallsMadeHereGivePythonsReport() throws {
        let found = try #require(try golden.run(KeptCache(Arithmetic())))
        let right = try vectors.entries("reports").filter { try $0.text("name") == "right" }
        #expect(right.count == 1)
        let expected = try measured(right[0].fields("report"))
        #expect(expected.map(\.call) == found.map(\.call))
        for (one, other) in zip(expected, found) {
            #expect(one.best == other.best)
            #expect(zip(one.logprobs, other.logprobs).allSatisfy { abs($0 - $1) < 1.01e-5 })
        }
        #expect(golden.judge(found).firstBeyond == nil)
    }
}
