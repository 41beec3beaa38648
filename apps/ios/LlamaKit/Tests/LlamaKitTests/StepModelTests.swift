import Testing

@testable import LlamaKit

private final class FourPositions: StepModel {
    let vocabSize = 8
    let maxContext = 4

    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: 2)
        return UnsafeBufferPointer(start: nil, count: 0)
    }
}

@Suite("Tokens that a step refuses")
struct StepModelTests {
    @Test(
        arguments: [
            ([], 0, "there are no tokens to run"),
            ([1], 3, "cannot go on from position 3: the cache holds 2 tokens"),
            ([1], -1, "cannot go on from position -1: the cache holds 2 tokens"),
            ([1, 1, 1], 2, "3 more tokens do not fit: the cache holds 2 of 4 positions"),
            ([1, 8], 0, "token 8 is outside the vocabulary of 8"),
            ([-1], 0, "token -1 is outside the vocabulary of 8"),
        ] as [([Int32], Int, String)])
    func refuses(ids: [Int32], position: Int, message: String) {
        #expect {
            _ = try FourPositions().step(ids, at: position)
        } throws: { error in
            (error as? PromptError)?.message == message
        }
    }

    @Test func takesWhatFits() throws {
        _ = try FourPositions().step([7, 0], at: 2)
    }
}
