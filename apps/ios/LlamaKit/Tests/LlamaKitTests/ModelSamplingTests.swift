import Testing

@testable import LlamaKit

@Suite("What a model wants its tokens drawn with")
struct ModelSamplingTests {
    private func of(_ text: String) throws -> ModelSampling {
        ModelSampling(try parseJson(text, where: "generation_config.json").fields(where: "").json)
    }

    @Test func aModelsWishesHoldAndOursWhereItHasNone() throws {
        let all = try of(
            """
            {"temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0.1, "repetition_penalty": 1.1}
            """)
        let expected = try Sampling(
            temperature: 0.6, topP: 0.9, topK: 50, minP: 0.1, repetitionPenalty: 1.1)
        #expect(all == ModelSampling(sampling: expected, passedOver: []))
        let one = try of(#"{"temperature": 1, "top_p": null, "other": 7}"#)
        #expect(try one.sampling == Sampling(temperature: 1))
        #expect(try of("{}").sampling == .defaults)
    }

    @Test func whoDoesNotSampleTakesTheLikeliest() throws {
        #expect(try of(#"{"do_sample": false, "temperature": 0.6}"#).sampling.temperature == 0)
        #expect(try of(#"{"do_sample": true, "temperature": 0.6}"#).sampling.temperature == 0.6)
        #expect(try of(#"{"do_sample": 0}"#).sampling == .defaults)
    }

    @Test func aWishThatCannotBeHadIsPassedOverWithANotice() throws {
        let found = try of(
            """
            {"temperature": -1, "top_p": "0.9", "top_k": 1.5, "min_p": true, "repetition_penalty": 1.2}
            """)
        #expect(try found.sampling == Sampling(repetitionPenalty: 1.2))
        #expect(found.passedOver.count == 4)
        #expect(
            found.passedOver.first
                == "generation_config.json: temperature cannot be -1; it is passed over")
    }
}
