import Testing

@testable import LlamaKit

@Suite("Memory before a model is loaded")
struct MemoryGateTests {
    private let need = MemoryNeed(residentBytes: 1_000_000, kvBytesPerToken: 1000)

    private func ask(_ tokens: Int, _ available: Int64, reserved: Int64 = 0) -> MemoryAnswer {
        MemoryGate(reservedBytes: reserved, availableBytes: { available }).ask(need, contextTokens: tokens)
    }

    @Test func whatFitsToTheByteFitsAndOneByteLessDoesNot() {
        #expect(ask(2048, 3_048_000) == .fits(needBytes: 3_048_000, availableBytes: 3_048_000))
        let smaller = MemoryAnswer.smaller(tokens: 1792, needBytes: 2_792_000, availableBytes: 3_047_999)
        #expect(ask(2048, 3_047_999) == smaller)
        let reserved = MemoryAnswer.smaller(tokens: 1792, needBytes: 2_792_000, availableBytes: 3_048_000)
        #expect(ask(2048, 3_048_000, reserved: 1) == reserved)
    }

    @Test func aContextOfFewerThan512TokensIsNotProposed() {
        let least = MemoryAnswer.smaller(tokens: 512, needBytes: 1_512_000, availableBytes: 1_512_000)
        #expect(ask(2048, 1_512_000) == least)
        #expect(ask(2048, 1_511_999) == .tooLarge(needBytes: 3_048_000, availableBytes: 1_511_999))
        #expect(ask(2048, 5, reserved: 100) == .tooLarge(needBytes: 3_048_000, availableBytes: 5))
    }

    @Test func aBundleThatDoesNotSayIsUnknownAndAbsurdNumbersDoNotWrapAround() {
        #expect(askMemory(nil, contextTokens: 2048, availableBytes: 1, reservedBytes: 0) == .unknown)
        let absurd = MemoryNeed(residentBytes: .max, kvBytesPerToken: .max)
        let answer = askMemory(absurd, contextTokens: 2048, availableBytes: 9, reservedBytes: 0)
        #expect(answer == .tooLarge(needBytes: .max, availableBytes: 9))
    }

    @Test func theSystemSaysWhatThereIs() {
        let bytes = systemAvailableBytes()
        #expect(bytes > 1 << 20)
        #expect(bytes < 1 << 50)
        #expect(freeBytesOfStorage(repository) > 1 << 20)
    }
}
