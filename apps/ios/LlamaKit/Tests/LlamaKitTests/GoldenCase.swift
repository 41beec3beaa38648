import Foundation

@testable import LlamaKit

/// The golden calls of the tests, and a golden.json of the right model.
struct GoldenCase {
    static let back = 48
    static let prefilled = 32
    static let calls: [GoldenCall] = {
        let steps = (32..<80).map { GoldenCall(text: .prompt, first: $0, at: $0) }
        let rewound = (48..<61).map { GoldenCall(text: .rewind, first: $0, at: $0) }
        let pieces = [
            GoldenCall(text: .prompt, first: 0, at: 46), GoldenCall(text: .prompt, first: 47, at: 95),
        ]
        return [GoldenCall(text: .prompt, first: 0, at: prefilled - 1)] + steps + rewound + pieces
    }()

    private static let prompt = (0..<96).map { Int32(mix(UInt32($0), 77) >> 8) % 64 }
    private static let rewound = (0..<13).map { Int32(mix(UInt32($0), 78) >> 8) % 64 }

    /// Return a golden.json as the exporter writes it.
    static func document(top: Int = 32, klMean: String = "0.002", klWorst: String = "0.01") throws
        -> JsonObject
    {
        let model = TinyLlama()
        let limits: JsonObject = [
            "kl_mean": .number(JsonNumber(digits: klMean)), "kl_worst": .number(JsonNumber(digits: klWorst)),
            "margin": .number(JsonNumber(digits: "0.28")),
        ]
        return [
            "format_version": number(1),
            "target": .text("onnx"),
            "runtime": .text("arithmetic 1"),
            "prompt_ids": .array(prompt.map { number(Int($0)) }),
            "rewind": .object(["to": number(back), "ids": .array(rewound.map { number(Int($0)) })]),
            "limits": .object(limits),
            "positions": .array(try calls.map { .object(try answer(model, $0, top)) }),
        ]
    }

    private static func answer(_ model: TinyLlama, _ call: GoldenCall, _ top: Int) throws -> JsonObject {
        let text = call.text == .prompt ? prompt : prompt.prefix(back) + rewound
        let logits = try model.step(Array(text[call.first...call.at]), at: call.first).map { Double($0) }
        let total = log(logits.reduce(0) { $0 + exp($1) })
        let order = logits.indices.sorted { logits[$0] > logits[$1] }
        let others = order.dropFirst(top).reduce(0) { $0 + exp(logits[$1] - total) }
        let pairs = order.prefix(top).map { place in
            Json.array([number(place), real(((logits[place] - total) * 1e5).rounded() / 1e5)])
        }
        return [
            "text": .text(call.text.rawValue), "from": number(call.first), "at": number(call.at),
            "top": .array(pairs), "rest_logprob": top == 64 ? .null : real(log(others)),
        ]
    }

    private static func real(_ value: Double) -> Json { JsonNumber(value).map { .number($0) } ?? .null }

    static func parse(_ document: JsonObject) throws -> Golden {
        try Golden.parse(Json.object(document).writeBytes())
    }

    static func verdict(_ model: any StepModel, _ golden: Golden? = nil) throws -> GoldenVerdict {
        let golden = try golden ?? parse(document())
        guard let measured = try golden.run(KeptCache(model)) else {
            throw BadVectors(description: "it was stopped")
        }
        return golden.judge(measured)
    }
}
