import Testing

@testable import LlamaKit

@Suite("The same logic in Python and here gives the same")
struct GenerationVectorsTests {
    private let vectors: Vectors

    init() throws {
        vectors = try Vectors("generation.json")
    }

    @Test func asManyTokensNeedNoReading() throws {
        try vectors.each("shared") {
            let cache = try KeptCache(RowModel())
            let held = try $0.ints("held")
            let ids = try $0.ints("ids")
            let shared = try $0.int("shared")
            if !held.isEmpty { _ = try cache.read(held) }
            try #require(cache.sharedLength(ids) == shared)
            try #require(cache.position == held.count)
            try #require(cache.keepPrefix(of: ids) == shared)
            try #require(cache.tokens == Array(held.prefix(shared)))
        }
    }

    @Test func stopTextsEndATextAtTheSamePlace() throws {
        try vectors.each("stop_texts") {
            var stops = try StopTexts(try $0.texts("stop"))
            var shown: [String] = []
            var tokens = 0
            for piece in try $0.texts("pieces") where !stops.isFound {
                tokens += 1
                shown.append(stops.release(piece))
            }
            shown.append(stops.rest())
            shown.removeAll(where: \.isEmpty)
            let expected = try $0.texts("shown")
            try #require(shown.map { Utf8Key($0) } == expected.map { Utf8Key($0) })
            try #require(try tokens == $0.int("tokens"))
            try #require(try stops.isFound == $0.bool("stopped"))
            try #require(stops.rest() == "")
        }
    }

    @Test func aFullContextIsFoundAndWhatHelps() throws {
        try vectors.each("overflow") {
            let turns = try $0.ints("turns").map(Int.init)
            let system = try $0.int("system")
            let found = findOverflow(
                turns: turns.count - 1, maxTokens: try $0.int("max_tokens"),
                maxContext: try $0.int("max_context")
            ) { dropped, hasSystem in
                turns.dropFirst(dropped).reduce(hasSystem ? system : 0, +)
            }
            try #require($0.contains("found") == (found != nil))
            guard let found else { return }
            let expected = try $0.fields("found")
            try #require(try found.needed == expected.int("needed"))
            try #require(try found.maxContext == $0.int("max_context"))
            try #require(try found.droppedTurns == expected.int("dropped_turns"))
            let kept = expected.contains("kept_tokens") ? try expected.int("kept_tokens") : nil
            try #require(found.keptTokens == kept)
            try #require(try found.tooLong.rawValue == expected.text("too_long"))
            try #require(try found.message == expected.text("message"))
        }
    }

    @Test func wholeTextsHaveTheSameIdsEndsAndCaches() throws {
        try vectors.each("texts") { text in
            let model = RowModel(maxContext: try text.int("max_context"))
            let generator = Generator(
                try KeptCache(model), tokenizer: LetterTokenizer(), stopIds: Set(try text.ints("stop_ids")))
            let penalty = try text.double("repetition_penalty")
            let settings = try WriteSettings(
                sampling: Sampling(temperature: 0, repetitionPenalty: penalty),
                maxTokens: text.int("max_tokens"))
            for entry in try text.list("runs") {
                let run = try entry.fields(where: "runs")
                let prompt = try run.ints("prompt")
                let ids = try run.ints("ids")
                let found = try generator.begin(prompt, settings).finish()
                try #require(found.ids == ids)
                try #require(try found.stats.stopReason.rawValue == run.text("stop_reason"))
                try #require(try found.stats.reusedTokens == run.int("reused"))
                try #require(found.stats.newTokens == ids.count)
                try #require(found.stats.promptTokens == prompt.count)
                try #require(try generator.cache.position == run.int("held"))
            }
        }
    }
}
