import Foundation
import Testing

@testable import LlamaKit

/// Load the tokenizer of the demo.
func demoTokenizer() throws -> any Tokenizer {
    try loadTokenizer(repository.appending(path: "export/llama_export/demo"))
}

/// Load one of the small tokenizers of the vectors.
func smallTokenizer(_ name: String) throws -> any Tokenizer {
    try loadTokenizer(repository.appending(path: "apps/shared/vectors/tokenizers/\(name)"))
}

/// Every id and every piece of text that Python writes must be the same.
@Suite("Vectors of tokenizers")
struct TokenizerVectorsTests {
    private let demo: Vectors
    private let small: Vectors

    init() throws {
        demo = try Vectors("tokenizer.json")
        small = try Vectors("small_tokenizers.json")
    }

    private func smallTokenizers() throws -> [String: any Tokenizer] {
        var found: [String: any Tokenizer] = [:]
        for each in try small.entries("tokenizers") {
            let name = try each.text("name")
            found[name] = try smallTokenizer(name)
        }
        return found
    }

    @Test func textsOfTheDemoHavePythonsIds() throws {
        let tokenizer = try demoTokenizer()
        try demo.each("encode") {
            let text = try $0.text("text")
            let ids = tokenizer.encode(text)
            try requireIds(ids, $0.ints("ids"))
            try requireSame(tokenizer.decode(ids), text)
        }
    }

    @Test func idsOfTheDemoHavePythonsTextWholeAndInPieces() throws {
        let tokenizer = try demoTokenizer()
        try demo.each("decode") { try requireDecoded(tokenizer, $0) }
    }

    @Test func theDemosSizeIsPythonsAndWhatIsNoIdIsRefused() throws {
        let size = try demo.fields("tokenizer").int("vocab_size")
        let tokenizer = try demoTokenizer()
        #expect(tokenizer.vocabSize == size)
        #expect(tokenizer.prefixIds.map(tokenizer.tokenName) == ["<|begin_of_text|>"])
        #expect(tokenizer.tokenName(0) == nil)
        let refused = try demo.ints("refused_ids")
        #expect(!refused.isEmpty)
        for id in refused {
            let expected = PromptError(
                "token id \(id) is outside the vocabulary of \(size)",
                hint: "Use the tokenizer of the model that wrote the ids: get the whole bundle again.")
            #expect(throws: expected) { try tokenizer.decode([id]) }
            #expect(throws: expected) { try tokenizer.streamDecoder(continues: false).push(id) }
        }
    }

    @Test func halfOfASurrogatePairReachesNoTokenizer() throws {
        // What Kotlin refuses cannot be a Swift string: it comes out of the conversion as U+FFFD.
        try demo.each("refused_texts") {
            let units = try $0.ints("utf16").map { UInt16($0) }
            let text = String(decoding: units, as: UTF16.self)
            #expect(text.unicodeScalars.contains("\u{FFFD}"))
        }
    }

    @Test func smallTokenizersAreWhatPythonTakesThemFor() throws {
        let tokenizers = try smallTokenizers()
        try small.each("tokenizers") { each in
            let tokenizer = try #require(tokenizers[each.text("name")])
            #expect(try tokenizer.vocabSize == each.int("vocab_size"))
            try requireIds(tokenizer.prefixIds, each.ints("prefix_ids"))
            let special = try namedIds(each, "special_tokens")
            #expect(tokenizer.specialTokens == special)
            let names = try special.merging(namedIds(each, "other_names")) { first, _ in first }
            let byId = Dictionary(uniqueKeysWithValues: names.map { ($0.value, $0.key) })
            for id in -1...Int32(tokenizer.vocabSize) {
                #expect(tokenizer.tokenName(id).map { Utf8Key($0) } == byId[id])
            }
        }
    }

    @Test func textsOfSmallTokenizersHavePythonsIds() throws {
        let tokenizers = try smallTokenizers()
        let texts = try small.entries("texts")
        try small.each("ids") { each in
            let tokenizer = try #require(tokenizers[each.text("name")])
            let ids = try each.list("ids").map { try #require($0.asArray) }
            #expect(ids.count == texts.count)
            for (text, ids) in zip(texts, ids) {
                let expected = ids.compactMap { $0.asNumber.flatMap { Int32($0.text) } }
                try requireIds(tokenizer.encode(text.text("text")), expected, text.text("name"))
            }
        }
    }

    @Test func textBehindSomethingElseHasPythonsIds() throws {
        let texts = try small.entries("texts")
        var continued: [String: [Json]] = [:]
        for each in try small.entries("continued") { continued[try each.text("name")] = try each.list("ids") }
        #expect(Set(continued.keys) == ["metaspace", "tinyllama"])
        for (name, tokenizer) in try smallTokenizers() {
            for (index, entry) in texts.enumerated() {
                let text = try entry.text("text")
                let ids = try continued[name].map { try #require($0[index].asArray) }
                let expected = ids?.compactMap { $0.asNumber.flatMap { Int32($0.text) } }
                let found = tokenizer.encode(text, continues: true)
                try requireIds(found, expected ?? tokenizer.encode(text), "\(name): \(entry.text("name"))")
            }
        }
    }

    @Test func idsOfSmallTokenizersHavePythonsTextWholeAndInPieces() throws {
        let tokenizers = try smallTokenizers()
        try small.each("decode") { each in
            try requireDecoded(try #require(tokenizers[each.text("tokenizer")]), each)
        }
    }

    private func requireDecoded(_ tokenizer: any Tokenizer, _ each: JsonFields) throws {
        let ids = try each.ints("ids")
        let text = try each.text("text")
        try requireSame(tokenizer.decode(ids), text)
        let stream = tokenizer.streamDecoder(continues: false)
        let pieces = try ids.map(stream.push)
        let rest = stream.flush()
        try requireSame(pieces.joined() + rest, text)
        // Where bytes are no character, it is not said when that becomes certain.
        if !text.unicodeScalars.contains("\u{FFFD}") {
            #expect(try each.list("pieces") == pieces.map(Json.text))
            try requireSame(rest, each.text("rest"))
        }
        try requireSame(ids.map(stream.push).joined() + stream.flush(), text)
    }

    private func requireIds(_ found: [Int32], _ expected: [Int32], _ name: String = "") throws {
        if found != expected {
            throw BadVectors(description: "\(name): expected \(expected), found \(found)")
        }
    }

    private func namedIds(_ each: JsonFields, _ key: String) throws -> [Utf8Key: Int32] {
        var found: [Utf8Key: Int32] = [:]
        for (name, id) in try each.fields(key).json.entries {
            found[Utf8Key(name)] = Int32(try #require(id.asNumber).int())
        }
        return found
    }
}
