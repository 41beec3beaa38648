import Foundation
import Testing

@testable import LlamaKit

/// A model that wants one id after the other, whatever it reads.
private final class Script: RowModel {
    private let ids: [Int]
    private let odd: Float?
    private var told = 0

    init(_ ids: [Int], odd: Float? = nil) {
        self.ids = ids
        self.odd = odd
        super.init(vocabSize: 256, maxContext: 64)
    }

    convenience init(_ text: String) {
        self.init(text.utf8.map(Int.init) + [0])
    }

    override func fill(_ held: Int) {
        for id in 0..<vocabSize { buffer[id] = 0 }
        buffer[ids[told % ids.count]] = 1
        told += 1
        if let odd { buffer[3] = odd }
    }
}

/// A model whose logits somebody else fills in, and whose calls may fail after they wrote.
private final class Told: RowModel {
    var fillIn: ((UnsafeMutableBufferPointer<Float>, Int) -> Void)?
    var onStep: (([Int32]) throws -> Void)?

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        let logits = try super.step(ids, at: position)
        try onStep?(ids)
        return logits
    }

    override func fill(_ held: Int) {
        if let fillIn { fillIn(buffer, held) } else { super.fill(held) }
    }
}

func greedy(_ maxTokens: Int = 512, stopTexts: [String] = []) throws -> WriteSettings {
    try WriteSettings(sampling: .greedy, maxTokens: maxTokens, stopTexts: stopTexts)
}

@Suite("Writing a text")
struct GeneratorTests {
    private func generator(
        _ model: any StepModel, stopIds: Set<Int32> = [], clock: @escaping () -> UInt64 = { 0 }
    ) throws -> Generator {
        Generator(try KeptCache(model), tokenizer: LetterTokenizer(), stopIds: stopIds, clock: clock)
    }

    @Test func piecesAreWholeCharacters() throws {
        var pieces: [String] = []
        let run = try generator(Script("a\u{E9}\u{1F600}b"), stopIds: [0]).begin([1], greedy())
        let found = try run.finish { pieces.append($0) }
        #expect(pieces == ["a", "\u{E9}", "\u{1F600}", "b"])
        #expect(found.text == "a\u{E9}\u{1F600}b")
        #expect(found.stats.newTokens == 8)
        #expect(found.stats.stopReason == .stopToken)
        #expect(try run.next(Stop()) == nil)
    }

    @Test func whatWasHeldBackComesAtTheEndHalfACharacterAsAReplacement() throws {
        let settings = try greedy(4, stopTexts: ["abc"])
        for (script, text) in [("xxab", "xxab"), ("xx\u{E9}", "xx\u{E9}"), ("xxx\u{E9}", "xxx\u{FFFD}")] {
            #expect(try generator(Script(script)).begin([1], settings).finish().text == text)
        }
    }

    @Test func aTextThatGoesOnKeepsItsFirstBlankAnAnswerHasNone() throws {
        let folder = repository.appending(path: "apps/shared/vectors/tokenizers/llama2")
        let pieces = try loadTokenizer(folder)
        let word = try #require(pieces.encode("a").last)
        let model = Told(vocabSize: pieces.vocabSize)
        model.fillIn = { logits, _ in for id in 0..<logits.count { logits[id] = id == Int(word) ? 1 : 0 } }
        let generator = Generator(try KeptCache(model), tokenizer: pieces, stopIds: [])
        #expect(try generator.begin("a", greedy(2)).finish().text == " a a")
        #expect(try generator.begin([word], greedy(2)).finish().text == "a a")
    }

    @Test func aStopTextEndsTheTextBeforeIt() throws {
        let settings = try greedy(30, stopTexts: ["\n\n", "END"])
        let found = try generator(Script("One\n\nTwo END")).begin([1], settings).finish()
        #expect(found.text == "One")
        #expect(found.ids.count == 5)
        #expect(found.stats.stopReason == .stopText)
    }

    @Test func anotherSpellingOfAStopTextIsAnotherText() throws {
        var stops = try StopTexts(["e\u{301}"])
        #expect(sameBytes(stops.release("a\u{E9}"), "a\u{E9}"))
        #expect(!stops.isFound)
        // An accent that follows makes one letter of two for a screen, and none for the model.
        #expect(sameBytes(stops.release("e"), ""))
        #expect(sameBytes(stops.release("\u{301}x"), ""))
        #expect(stops.isFound)
        var blank = try StopTexts(["\r\n"])
        #expect(sameBytes(blank.release("a\n\r"), "a\n"))
        #expect(sameBytes(blank.release("\n"), ""))
        #expect(blank.isFound)
    }

    @Test func ofTwoStopTextsInOnePieceTheFirstCounts() throws {
        var stops = try StopTexts(["FIN", "END"])
        #expect(stops.release("one END two FIN") == "one ")
    }

    @Test func whatIsStoppedBreaksOffWithoutHalfACharacter() throws {
        let stop = Stop()
        let model = Told(vocabSize: 256)
        model.fillIn = { logits, _ in for id in 0..<256 { logits[id] = id == 0xF0 ? 1 : 0 } }
        model.onStep = { _ in stop.request() }
        let half = try generator(model).begin([1], greedy(30))
        #expect(try half.next(stop) == nil)
        #expect(half.completion.text == "")
        #expect(half.completion.ids == [0xF0])
        #expect(half.completion.stats.stopReason == .interrupted)
    }

    @Test func figuresAreThoseOfTheFormulas() throws {
        var now: UInt64 = 5_000_000_000
        let model = Told()
        model.onStep = { now += $0.count > 1 ? 2_000_000_000 : 250_000_000 }
        let found = try generator(model, clock: { now }).begin([1, 2, 3], greedy(9)).finish()
        #expect(found.stats.timeToFirstTokenS == 2)
        #expect(found.stats.decodeS == 2)
        #expect(found.stats.decodeTokensPerS == 8 / 2)
        #expect(found.stats.contextTokens == 12)
        // The stop token's time is nobody's.
        let ended = try generator(model, stopIds: [found.ids[5]], clock: { now }).begin([1, 2, 3], greedy(9))
        #expect(try ended.finish().stats.decodeS == 0.25 * Double(ended.completion.ids.count - 1))
        #expect(found.stats.maxContext == 64)
    }

    @Test func oneTokenHasNoSpeedAndAnEmptyAnswerItsTime() throws {
        var now: UInt64 = 0
        func write(_ stopIds: Set<Int32>) throws -> Completion {
            let clock: () -> UInt64 = {
                now += 1
                return now
            }
            return try generator(RowModel(), stopIds: stopIds, clock: clock).begin([1], greedy(1)).finish()
        }
        #expect(try write([]).stats.decodeTokensPerS == 0)
        let none = try write(Set(0...63))
        #expect(none.stats.newTokens == 0)
        #expect(none.stats.timeToFirstTokenS == 1e-9)
        #expect(none.stats.decodeS == 0)
    }

    @Test func aPromptIsReadInPiecesAndCanBeStoppedBetweenThem() throws {
        let model = RowModel(maxContext: 400)
        let stop = Stop()
        var seen: [[Int]] = []
        let prompt = (0..<300).map { Int32($0 % 60) }
        let generator = try generator(model)
        let run = try generator.begin(prompt, greedy(3))
        let piece = try run.next(stop) { done, all in
            seen.append([done, all])
            if done == 128 { stop.request() }
        }
        #expect(piece == nil)
        #expect(seen == [[0, 300], [128, 300]])
        #expect(model.calls == [128])
        #expect(run.completion.stats.stopReason == .interrupted)
        #expect(generator.cache.tokens == Array(prompt[..<128]))
        let again = try generator.begin(prompt, greedy(3)).finish()
        #expect(again.stats.reusedTokens == 128)
        let fresh = try self.generator(RowModel(maxContext: 400)).begin(prompt, greedy(3)).finish()
        #expect(fresh.ids == again.ids)
    }

    @Test func aStopBeforeTheFirstCallDoesNothingAtAll() throws {
        let model = RowModel(maxContext: 400)
        let run = try generator(model).begin(Array(repeating: 1, count: 300), greedy())
        let stop = Stop()
        stop.request()
        #expect(try run.next(stop) { _, _ in Issue.record("nothing is read") } == nil)
        #expect(model.calls.isEmpty)
        #expect(run.completion.stats.timeToFirstTokenS == 0)
    }

    @Test func aTextThatAnotherOneEndedWritesNothingMore() throws {
        let model = RowModel()
        let generator = try generator(model)
        let begun = try generator.begin([1, 2], greedy())
        _ = try begun.next(Stop())
        let second = try generator.begin([9], greedy())
        _ = try second.next(Stop())
        let calls = model.calls.count
        #expect(try begun.next(Stop()) == nil)
        #expect(model.calls.count == calls)
        #expect(try second.next(Stop()) != nil)
    }

    @Test func aRuntimeThatFailsLeavesWhatWasWrittenAndTheNextTextIsRight() throws {
        let model = Told()
        let generator = try generator(model)
        let run = try generator.begin([1, 2, 3], greedy(20))
        for _ in 0..<3 { _ = try run.next(Stop()) }
        model.onStep = { _ in throw EngineError("0x21", hint: "") }
        #expect(throws: EngineError.self) { try run.next(Stop()) }
        model.onStep = nil
        #expect(try run.next(Stop()) == nil)
        #expect(run.completion.ids.count == 3)
        #expect(generator.cache.position == 5)
        let edited: [Int32] = [1, 2, 7]
        let fresh = try self.generator(RowModel()).begin(edited, greedy()).finish()
        #expect(try generator.begin(edited, greedy()).finish().ids == fresh.ids)
    }

    @Test func aSeedGivesTheSameTextAgainAndAnotherOneAnother() throws {
        func write(_ seed: Int64?) throws -> Completion {
            let settings = try WriteSettings(sampling: Sampling(temperature: 1, seed: seed), maxTokens: 30)
            return try generator(RowModel(steps: 2048)).begin([5], settings).finish()
        }
        #expect(try write(7).ids == write(7).ids)
        #expect(try write(7).ids != write(8).ids)
        let fresh = try write(nil)
        #expect(try write(fresh.stats.seed).ids == fresh.ids)
    }

    @Test func idsBeyondTheTokenizerAreNeverDrawn() throws {
        for penalty in [1, 1.1] {
            let sampling = try Sampling(temperature: 1, seed: 1, repetitionPenalty: penalty)
            let settings = try WriteSettings(sampling: sampling, maxTokens: 60)
            let found = try generator(RowModel(vocabSize: 400)).begin([1], settings).finish()
            #expect(found.ids.allSatisfy { $0 < 256 })
        }
    }

    @Test func theLogitsOfAPrunedHeadStandForItsTokens() throws {
        let model = Told(vocabSize: 301)
        model.fillIn = { logits, held in
            for (place, logit) in [1, 0, Float(held) - 2, 99].enumerated() { logits[place] = logit }
        }
        let generator = Generator(
            try KeptCache(model), tokenizer: LetterTokenizer(), stopIds: [66], headTokens: [7, 65, 66, 300])
        let found = try generator.begin([1], greedy()).finish()
        #expect(found.ids == [7, 7, 7])
        #expect(found.stats.stopReason == .stopToken)
    }

    @Test func logitsThatAreNoNumbersAreAnEnginesError() throws {
        for odd in [Float.nan, .infinity] {
            let run = try generator(Script([1], odd: odd)).begin([1], greedy())
            #expect {
                try run.next(Stop())
            } throws: {
                (($0 as? EngineError)?.message ?? "").contains("1 of 256 are NaN")
            }
        }
        let pruned = try generator(Script([7], odd: -.infinity))
        #expect(try pruned.begin([1], greedy(1)).finish().ids == [7])
    }

    @Test func whatCannotBeBegunIsRefused() throws {
        let generator = try generator(RowModel())
        #expect(throws: PromptError("the prompt is empty", hint: "Give a text of at least one character.")) {
            try generator.begin("")
        }
        #expect(throws: PromptError.self) { try generator.begin([]) }
        #expect {
            try generator.begin(Array(repeating: 0, count: 65))
        } throws: {
            (($0 as? PromptError)?.message ?? "").contains("65 tokens long, and the context has room for 64")
        }
        #expect(
            throws: BadInput(
                "max_tokens: expected at least 1; found 0", hint: "Allow some tokens.", kind: .setting)
        ) { try WriteSettings(maxTokens: 0) }
        #expect(throws: BadInput.self) { try WriteSettings(stopTexts: ["a", ""]) }
        for context in [0, 65] {
            #expect {
                try KeptCache(RowModel(), maxContext: context)
            } throws: {
                (($0 as? BadInput)?.message ?? "")
                    .contains("1 to 64, the positions of this bundle; found \(context)")
            }
        }
    }

    @Test func aSmallerContextThanTheModelsIsKeptTo() throws {
        let cache = try KeptCache(RowModel(), maxContext: 10)
        let generator = Generator(cache, tokenizer: LetterTokenizer(), stopIds: [])
        let found = try generator.begin([1, 2], greedy(50)).finish()
        #expect(found.stats.stopReason == .contextFull)
        #expect(cache.position == 10)
        #expect {
            _ = try cache.read([1])
        } throws: {
            (($0 as? PromptError)?.message ?? "").contains("there is room for 0")
        }
    }

    @Test func rewinding() throws {
        let cache = try KeptCache(RowModel())
        _ = try cache.read([1, 2, 3])
        try cache.rewind(to: 1)
        #expect(cache.tokens == [1])
        for position in [2, -1] {
            let message = "cannot rewind to position \(position): there are 1 tokens"
            #expect(throws: PromptError(message, hint: "Give a position from 0 to 1.")) {
                try cache.rewind(to: position)
            }
        }
        #expect(throws: PromptError.self) { _ = try cache.read([]) }
        #expect(cache.tokens == [1])
    }
}
