import Testing

@testable import LlamaKit

@Suite("A full context")
struct OverflowTests {
    private func length(_ turns: [Int], _ system: Int) -> (Int, Bool) -> Int {
        { dropped, hasSystem in turns.dropFirst(dropped).reduce(hasSystem ? system : 0, +) }
    }

    @Test func asFewTurnsGoAsCanBeWhateverTheirLengths() throws {
        var dice = Dice(2)
        var found = 0
        for _ in 0..<2000 {
            let turns = (0..<(1 + 2 * dice.below(8))).map { _ in 1 + dice.below(60) }
            let maxTokens = 1 + dice.below(100)
            let context = 32 + dice.below(200)
            let length = length(turns, dice.below(20))
            let overflow = findOverflow(
                turns: turns.count - 1, maxTokens: maxTokens, maxContext: context, length: length)
            guard let overflow else { continue }
            let least = min(maxTokens, 16)
            let room = max(min(maxTokens, context / 4), least)
            let expected = stride(from: 2, to: turns.count, by: 2).first {
                length($0, true) + ($0 == turns.count - 1 ? least : room) <= context
            }
            try #require(overflow.droppedTurns == expected ?? (turns.count - 1))
            try #require(overflow.keptTokens == expected.map { length($0, true) })
            if expected != nil { found += 1 }
        }
        #expect(found > 300)
    }

    @Test func aConversationOfTenThousandTurnsIsCountedAFewTimes() {
        var counted = 0
        let overflow = findOverflow(turns: 10_000, maxTokens: 512, maxContext: 8192) { dropped, _ in
            counted += 1
            return 30 * (10_001 - dropped)
        }
        // 512 of 8192 are for the answer, and turns go in pairs of 60.
        #expect(overflow?.keptTokens == 7650)
        #expect(counted < 20)
    }
}
