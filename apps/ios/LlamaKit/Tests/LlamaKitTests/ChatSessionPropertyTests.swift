import Foundation
import Testing

@testable import LlamaKit

/// Whoever cancels, and whenever, the cache holds what its record says, and the next answer is right.
@Suite("A session after random cancels from other tasks")
struct ChatSessionPropertyTests {
    @Test(arguments: 0..<6)
    func isTrue(seed: Int) async throws {
        var dice = Dice(1000 + seed)
        let hold = Hold()
        let session = try await ChatSession(letters) { Held(hold) }
        let short = try greedy(24)
        var cancelled = 0
        for _ in 0..<30 {
            while try await session.length > 400 { try await session.dropOldest(2) }
            let way = dice.below(4)
            hold.step(after: way < 2 ? dice.below(20) : .max)
            let pieces = try await ask(session, short, &dice)
            let wait = dice.below(5000)
            let reader = Task { try await whole(pieces).text }
            let canceller = Task {
                try? await Task.sleep(for: .microseconds(wait))
                switch way {
                case 0: reader.cancel()
                case 1: session.stop()
                default: break
                }
            }
            let read = try await reader.value
            await canceller.value
            let kept = await session.turns.last?.text ?? ""
            if await session.lastStats?.stopReason == .interrupted { cancelled += 1 }
            #expect(way == 0 || read.isEmpty || sameBytes(kept, read))
            try #require(try await session.isTrue())
        }
        #expect(cancelled > 5)
        let fresh = try await Chat(
            Generator(Failing(700)), shortForm, system: session.system, turns: session.turns)
        let expected = try fresh.send("end", short).text
        hold.step(after: .max)
        #expect(try await whole(session.send("end", short)).text == expected)
    }

    private func ask(
        _ session: ChatSession, _ settings: WriteSettings, _ dice: inout Dice
    ) async throws -> Pieces {
        let turns = await session.turns.count
        let count = 1 + dice.below(dice.below(4) == 0 ? 250 : 9)
        let text = (0..<count).map { _ in ["a", "b", "c"][dice.below(3)] }.joined()
        switch turns == 0 ? 0 : dice.below(6) {
        case 0, 1, 2: return session.send(text, settings)
        case 3: return session.regenerate(settings)
        case 4: return session.edit(2 * dice.below(turns / 2), text, settings)
        default:
            try await session.undo()
            return session.send(text, settings)
        }
    }
}
