import Foundation
import Testing

@testable import LlamaKit

/// Which files are read, which counts, and what is refused with a word on what to do.
@Suite("Files of tokenizers")
final class TokenizerFilesTests {
    private let folder: URL
    private let ranks: [UInt8]

    init() throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let file = repository.appending(path: "export/llama_export/demo/tokenizer.model")
        ranks = try [UInt8](Data(contentsOf: file))
    }

    deinit {
        try? FileManager.default.removeItem(at: folder)
    }

    private func small(_ name: String) throws -> JsonObject {
        let file = repository.appending(path: "apps/shared/vectors/tokenizers/\(name)/tokenizer.json")
        return try parseJson([UInt8](Data(contentsOf: file)), where: name).fields(where: name).json
    }

    private func put(_ name: String, _ text: String) throws { try put(name, Array(text.utf8)) }

    private func put(_ name: String, _ bytes: [UInt8]) throws {
        try Data(bytes).write(to: folder.appending(path: name))
    }

    private func refused() -> String {
        do {
            let loaded = try loadTokenizer(folder)
            return "loaded \(loaded.vocabSize) tokens"
        } catch {
            guard let error = error as? any AppError else { return "\(error)" }
            #expect(!error.hint.isEmpty)
            return error.message
        }
    }

    private func expectRefused(
        _ document: JsonObject, _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try put("tokenizer.json", Json.object(document).write())
        let message = refused()
        for part in parts {
            #expect(message.contains(part), "\(message)", sourceLocation: sourceLocation)
        }
    }

    @Test func aFolderWithoutATokenizerIsRefused() {
        #expect(refused() == "\(folder.path) holds no tokenizer: expected tokenizer.json or tokenizer.model")
    }

    @Test func aFileThatIsTooLargeIsNotRead() throws {
        try put("tokenizer.json", "{}")
        let file = try FileHandle(forWritingTo: folder.appending(path: "tokenizer.json"))
        try file.truncate(atOffset: (64 << 20) + 1)
        try file.close()
        #expect(refused() == "tokenizer.json: 67108865 bytes are too many for a tokenizer")
    }

    @Test func whatIsNoTokenizerIsNamed() throws {
        let cases = [
            ("", "an empty file"),
            ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            ("<html>\n", "a file that begins with \"<html>"),
            ("\n\u{10}\n\u{3}abc", "is a SentencePiece model, which this app does not read"),
        ]
        for (content, found) in cases {
            try put("tokenizer.model", content)
            #expect(refused().contains(found))
        }
        try put("tokenizer.json", "{\"model\": ")
        #expect(refused().contains("tokenizer.json is not valid JSON"))
        try put("tokenizer.json", [UInt8(ascii: "{"), 0xFF])
        #expect(refused() == "tokenizer.json is not UTF-8")
    }

    @Test func damagedRanksAreNamedWithTheirLine() throws {
        let lines = String(decoding: ranks, as: UTF8.self).split(separator: "\n").map(String.init)
        let letters = lines[300].split(separator: " ")[0]
        func refused(_ lines: some Collection<String>) throws -> String {
            try put("tokenizer.model", lines.joined(separator: "\n"))
            return self.refused()
        }
        var damaged = lines
        damaged[1] = "####"
        #expect(try refused(damaged).contains("line 2: expected `base64 rank`, found \"####\""))
        let last = lines.count
        #expect(
            try refused(lines + ["YWFhYWFhYWFhYWFh 7"]).contains(
                "line \(last + 1): the rank 7 is given twice"))
        damaged = lines
        damaged.remove(at: 300)
        #expect(try refused(damaged).contains("the ranks of its \(last - 1) tokens have a gap"))
        #expect(
            try refused(lines + ["\(letters) \(last)"]).contains(
                "the token of rank \(last) stands there twice"))
        let others = lines.dropFirst(4).enumerated().map { "\($1.split(separator: " ")[0]) \($0)" }
        #expect(try refused(others).contains("4 of the 256 single bytes have no token"))
        #expect(try refused(lines + ["YWFhYWFhYWFhYWFh 99999999"]).contains("is too large"))
        let many = (0..<17_000).map { number in
            let token = "\(number)".utf8 + Array(repeating: 32, count: 256 - "\(number)".utf8.count)
            return "\(Data(token).base64EncodedString()) \(last + number)"
        }
        #expect(try refused(lines + many).contains("have more than 4194304 bytes"))
        #expect(try refused(lines + [" \(last)"]).contains("expected a token of 1 to 256 bytes, found 0"))
        #expect(try refused(lines + ["YWF \(last)"]).contains("expected `base64 rank`"))
        #expect(try refused(lines + ["YWFh"]).contains("expected `base64 rank`"))
        try put("tokenizer.model", lines.joined(separator: "\r\n"))
        #expect(try loadTokenizer(folder).vocabSize == lines.count + 256)
    }

    @Test func theTokenizerJsonThatAnExportMakesOfTheRanksIsKnownAndAnyOtherCounts() throws {
        let made = try RankTokens(ranks, where: "tokenizer.model")
        #expect(!Llama3Json.isMade(of: made, Array("{\"version\":\"1.0\",".utf8)))
        try put("tokenizer.model", ranks)
        try put("tokenizer.json", Json.object(small("llama3")).write())
        #expect(try loadTokenizer(folder).specialTokens["<|im_start|>"] != nil)
        try FileManager.default.removeItem(at: folder.appending(path: "tokenizer.json"))
        #expect(try loadTokenizer(folder).specialTokens["<|eot_id|>"] != nil)
    }

    @Test func stepsThatAreNotDoneAreRefusedByName() throws {
        let llama3 = try small("llama3")
        let byteLevel = step("ByteLevel", ["add_prefix_space": .bool(false), "use_regex": .bool(false)])
        let other = step(
            "Split",
            [
                "pattern": .object(["Regex": .text("\\w+")]), "behavior": .text("Isolated"),
                "invert": .bool(false),
            ])
        let sequence = step("Sequence", ["pretokenizers": .array([.object(other), .object(byteLevel)])])
        let normalizer = llama3.with("normalizer", .object(step("NFC", [:])))
        try expectRefused(normalizer, "the normalizer has NFC", "expected Prepend")
        func splitting(_ step: JsonObject) -> JsonObject { llama3.with("pre_tokenizer", .object(step)) }
        try expectRefused(splitting(sequence), "the pre_tokenizer has Split", "w+")
        try expectRefused(splitting(step("Whitespace", [:])), "the pre_tokenizer has Whitespace")
        try expectRefused(
            splitting(byteLevel.with("add_prefix_space", .bool(true))),
            "the pre_tokenizer has add_prefix_space")
        let decoder = llama3.with("decoder", .object(step("WordPiece", [:])))
        try expectRefused(decoder, "the decoder has WordPiece")
        let processor = llama3.with("post_processor", .object(step("BertProcessing", [:])))
        try expectRefused(processor, "the post_processor has Bert")
        let unigram = llama3.withModel("type", .text("Unigram"))
        try expectRefused(unigram, "the model has a model of type Unigram")
        try expectRefused(llama3.withModel("dropout", .number(JsonNumber(1))), "the model has dropout")
        try expectRefused(llama3.withModel("end_of_word_suffix", .text("</w>")), "end_of_word_suffix")
        let precompiled = step("Precompiled", ["precompiled_charsmap": .text("")])
        try expectRefused(
            small("llama2").with("normalizer", .object(precompiled)), "the normalizer has Precompiled")
    }

    @Test func damageInATokenizerJsonIsNamed() throws {
        let llama3 = try small("llama3")
        func merging(_ merge: String) -> JsonObject { llama3.withModel("merges", .array([.text(merge)])) }
        try expectRefused(merging("qq zz"), "\"qq\", which is no token")
        try expectRefused(merging("q"), "a merge must be two tokens")
        let vocab = Json.object(["a": .number(JsonNumber(-1))])
        try expectRefused(llama3.withModel("vocab", vocab), "\"a\" has no id")
        try expectRefused(llama3.withModel("vocab", .array([])), "vocab: expected an object")
        let gone = llama3.withModel("unk_token", .text("<gone>"))
        try expectRefused(gone, "unk_token \"<gone>\" is no token")
        let empty = llama3.with("added_tokens", .array([.object([:])]))
        try expectRefused(empty, "the key content is missing")
        let noList = llama3.with("added_tokens", .object([:]))
        try expectRefused(noList, "added_tokens: expected a list")
        let twice = Json.object(["a": .number(JsonNumber(0)), "b": .number(JsonNumber(0))])
        try expectRefused(llama3.withModel("vocab", twice), "the tokens \"a\" and \"b\" have one id")
        // Tables of so many ids would take hundreds of megabytes.
        let far = Json.object(["a": .number(JsonNumber(1 << 24 - 1))])
        try expectRefused(llama3.withModel("vocab", far), "\"a\" has no id")
        let steps = step("Sequence", ["processors": .text("none")])
        try expectRefused(llama3.with("post_processor", .object(steps)), "processors: expected a list")
        let bos = Json.object(["SpecialToken": .object(["id": .text("<s>")])])
        let odd = Json.object(["<s>": .object(["ids": .array([.number(JsonNumber(1.5)!)])])])
        let template = step("TemplateProcessing", ["single": .array([bos]), "special_tokens": odd])
        try expectRefused(
            llama3.with("post_processor", .object(template)), "post_processor: expected ids, found \"1.5\"")
        let none = llama3.withModel("vocab", .object([:])).with("added_tokens", .array([]))
        try expectRefused(none, "it has no tokens")
        try put("tokenizer.json", Json.object(llama3).write())
        try put("tokenizer_config.json", "{\"bos_token\": 5}")
        #expect(refused().contains("bos_token: expected a token's name"))
        try put("tokenizer_config.json", [UInt8(ascii: "{"), 0xFF])
        #expect(refused() == "tokenizer_config.json is not UTF-8")
    }

    @Test func aTokenInASingleWordIsRefusedUnlessTextNeverBecomesIt() throws {
        let llama3 = try small("llama3")
        let token = try #require(llama3["added_tokens"]?.asArray?.first?.asObject)
            .with("single_word", .bool(true)).with("content", .text("<x>"))
            .with("id", .number(JsonNumber(429)))
        let plain = Json.object(token.with("special", .bool(false)))
        try expectRefused(
            llama3.with("added_tokens", .array([plain])),
            "the added token \"<x>\", found as a single word only")
        try put("tokenizer.json", Json.object(llama3.with("added_tokens", .array([.object(token)]))).write())
        #expect(try loadTokenizer(folder).specialTokens["<x>"] != nil)
    }

    @Test func aMergeThatMakesAControlTokenOfTextIsLeftOut() throws {
        let llama3 = try small("llama3")
        let model = try #require(llama3["model"]?.asObject)
        let vocabulary = try #require(model["vocab"]?.asObject)
            .with("#q", .number(JsonNumber(600))).with("#qx", .number(JsonNumber(601)))
        let merges = try #require(model["merges"]?.asArray) + [.text("# q"), .text("#q x")]
        let changed = llama3.withModel("vocab", .object(vocabulary)).withModel("merges", .array(merges))
        try put("tokenizer.json", Json.object(changed).write())
        #expect(try loadTokenizer(folder).encode("#qx") == [601])
        let added = "\"added_tokens_decoder\": {\"601\": {\"content\": \"#qx\", \"special\": true}}"
        for settings in ["{\"pad_token\": \"#qx\"}", "{\(added)}"] {
            try put("tokenizer_config.json", settings)
            let found = try loadTokenizer(folder)
            #expect(found.specialTokens["#qx"] == 601)
            #expect(try found.decode(found.encode("#qx")) == "#qx")
            #expect(!found.encode("#qx").contains(601))
        }
    }

    @Test func theSettingsNameControlTokensAndAddTokensInTheOrderOfTheirIds() throws {
        try put("tokenizer.json", Json.object(small("smollm2")).write())
        try put(
            "tokenizer_config.json",
            #"{"eos_token": {"content": "[F]"}, "pad_token": "[P]", "cls_token": null, "#
                + #""extra_special_tokens": {"image": "[I]"}, "added_tokens_decoder": "#
                + #"{"428": {"content": "<t>", "special": null}, "427": "<u>"}}"#)
        let found = try loadTokenizer(folder)
        let named = found.specialTokens.keys.filter { $0.text.hasPrefix("[") }
        #expect(Set(named) == ["[P]", "[F]", "[I]"])
        let ids = found.encode("<u><t>")
        #expect(ids.map(found.tokenName) == ["<u>", "<t>"])
        #expect(ids[0] + 1 == ids[1])
        #expect(found.specialTokens["<t>"] == nil)
        #expect(found.prefixIds.isEmpty)
    }

    @Test func settingsOfOtherKindsAreRefusedWithTheirKey() throws {
        try put("tokenizer.json", Json.object(small("smollm2")).write())
        let cases = [
            (#"{"additional_special_tokens": "<x>"}"#, "additional_special_tokens: expected a list"),
            (#"{"added_tokens_decoder": ["<x>"]}"#, "added_tokens_decoder: expected an object"),
            (#"{"added_tokens_decoder": {"x": "<x>"}}"#, "expected ids of tokens as keys, found \"x\""),
            (
                #"{"added_tokens_decoder": {"7": {"content": "<x>", "special": 1}}}"#,
                "\"7\": special: expected true or false"
            ),
            (#"{"added_tokens_decoder": {"7": {}}}"#, "\"7\": expected a token's name"),
            (#"{"pad_token": "\ud800"}"#, "half of a surrogate pair"),
        ]
        for (settings, expected) in cases {
            try put("tokenizer_config.json", settings)
            let message = refused()
            #expect(message.contains(expected), "\(message)")
        }
        let many = (0..<40_000).map { "\"<\($0)>\"" }.joined(separator: ",")
        try put("tokenizer_config.json", "{\"additional_special_tokens\": [\(many)]}")
        #expect(refused().contains("40000 added tokens, expected at most 32768"))
    }

    @Test func namesThatLookTheSameAreTwoTokens() throws {
        try put("tokenizer.json", Json.object(small("smollm2")).write())
        try put("tokenizer_config.json", "{\"eos_token\": \"<\u{e9}>\", \"pad_token\": \"<e\u{301}>\"}")
        let found = try loadTokenizer(folder)
        let (composed, decomposed) = (found.specialTokens["<\u{e9}>"], found.specialTokens["<e\u{301}>"])
        #expect(composed != nil && decomposed != nil && composed != decomposed)
    }
}

private func step(_ type: String, _ keys: JsonObject) -> JsonObject { keys.with("type", .text(type)) }

extension JsonObject {
    fileprivate func with(_ key: String, _ value: Json) -> JsonObject {
        var changed = self
        changed[key] = value
        return changed
    }

    fileprivate func withModel(_ key: String, _ value: Json) -> JsonObject {
        with("model", .object((self["model"]?.asObject ?? [:]).with(key, value)))
    }
}
