import Foundation
import Testing

@testable import LlamaKit

/// Return the messages of a dialog.
func messagesOf(_ dialog: JsonFields) throws -> [Message] {
    try dialog.list("messages").map {
        let message = try $0.fields(where: "messages")
        return Message(try #require(Role(rawValue: try message.text("role"))), try message.text("content"))
    }
}

@Suite("How dialogs are written")
struct ChatFormatTests {
    private static let endOfTurn: Int32 = 3849
    private static let around = #"{"prefix": [1], "suffix": ["x", {"strftime": "%d"}]}"#
    private let vectors: Vectors
    private let tokenizers: [String: any Tokenizer]
    private let forms: [String: ChatFormat]

    init() throws {
        vectors = try Vectors("chat.json", format: 2)
        var loaded: [String: any Tokenizer] = [:]
        var tokenizers: [String: any Tokenizer] = [:]
        var forms: [String: ChatFormat] = [:]
        try vectors.each("forms") {
            let name = try $0.text("tokenizer")
            let folder =
                name == "demo" ? "export/llama_export/demo" : "apps/shared/vectors/tokenizers/\(name)"
            let tokenizer = try loaded[name] ?? loadTokenizer(repository.appending(path: folder))
            loaded[name] = tokenizer
            tokenizers[try $0.text("name")] = tokenizer
            forms[try $0.text("name")] = try ChatFormat(
                $0.fields("chat"), vocabSize: tokenizer.vocabSize)
        }
        self.tokenizers = tokenizers
        self.forms = forms
    }

    private func form(_ name: String) throws -> ChatFormat { try #require(forms[name]) }

    private func plain(_ part: FormPart) throws -> Json {
        switch part {
        case .token(let id): .number(JsonNumber(id))
        case .text(let text): .text(text)
        case .time: throw BadVectors(description: "a time that was not written")
        }
    }

    @Test func everyDialogIsWrittenAsTheTemplateWritesIt() throws {
        try vectors.each("dialogs") {
            let form = try form($0.text("form"))
            let tokenizer = try #require(tokenizers[try $0.text("form")])
            let now = localTime(try $0.text("time"))
            let parts = try form.write(messagesOf($0), asks: true, now: now)
            try #require(try parts.map(plain) == $0.list("parts"))
            try #require(try form.encode(messagesOf($0), tokenizer, now: now) == $0.ints("ids"))
        }
    }

    @Test func aFormHasTurnsOrAReasonWhyNot() {
        for (name, form) in forms { #expect((form.turns == nil) != (form.reason == nil), "\(name)") }
        #expect(forms.filter { $0.value.turns == nil }.keys.sorted() == ["a base model", "answers changed"])
    }

    @Test func aSystemMessageIsRefusedWhereThereCanBeNone() throws {
        let without = forms.filter { !$0.value.takesSystem && $0.value.turns != nil }
        #expect(Array(without.keys) == ["llama guard"])
        let dialog = [Message(.system, "Be brief."), Message(.user, "Hi")]
        let error = PromptError(
            "this model's dialogs have no system message", hint: "Say it in your first message instead.")
        #expect(throws: error) { try form("llama guard").encode(dialog, LetterTokenizer()) }
    }

    @Test func aSystemMessageInsideTheLastMessageStandsThereWhileTheAnswerIsWritten() throws {
        let form = try form("mistral")
        let asked = [Message(.system, "s"), Message(.user, "a"), Message(.assistant, " b ")]
        func texts(_ messages: [Message], asks: Bool) throws -> [String] {
            try form.write(messages, asks: asks, now: localTime("2024-07-26T09:05:03")).compactMap { part in
                if case .text(let text) = part { text } else { nil }
            }
        }
        #expect(try texts(asked, asks: false) == ["[INST] s\n\na[/INST] b"])
        let again = asked + [Message(.user, "c")]
        #expect(try texts(again, asks: true) == ["[INST] a[/INST] b", "[INST] s\n\nc[/INST]"])
    }

    @Test func thoughtsAreLeftOutByTheirBytes() throws {
        let turn = Turn(prefix: [], suffix: [])
        let form = ChatFormat(
            turns: Turns(
                begin: [], noSystem: [], system: nil, user: turn, assistant: turn, answer: [], trim: [],
                thoughtsEnd: "</e>"),
            reason: nil)
        func written(_ answer: String) throws -> [UInt8] {
            let messages = [Message(.user, "x</e>"), Message(.assistant, answer)]
            let ids = try form.encode(messages, LetterTokenizer(), asks: false)
            return ids.dropFirst(5).map { UInt8($0) }
        }
        // A mark after it makes another character of its last letter, and still it is there.
        for (answer, rest) in [
            ("a</e>b</e>c", "c"), ("abc", "abc"), ("</e>", ""), ("a</e>\u{301}c", "\u{301}c"), ("</e", "</e"),
        ] {
            #expect(try written(answer) == Array(rest.utf8), "\(answer)")
        }
    }

    @Test func aTextBehindATokenContinuesAndOneAtTheBeginningDoesNot() throws {
        let asked = [Message(.user, "a"), Message(.assistant, "b"), Message(.user, "c")]
        let words = LetterTokenizer()
        _ = try form("vicuna").encode(asked, words)
        #expect(words.wereContinuing == [false, true])
        let headers = LetterTokenizer()
        _ = try form("llama 3").encode(asked, headers)
        #expect(Set(headers.wereContinuing) == [true])
    }

    @Test func textsAreEncodedJoinedAndTokensStay() throws {
        let tokenizer = LetterTokenizer()
        let form = try form("vicuna")
        let ids = try form.encode([Message(.user, "hi")], tokenizer)
        #expect(tokenizer.encoded.count == 1)
        #expect(ids == tokenizer.encoded.flatMap { $0.utf8.map(Int32.init) })
        let asked = [Message(.user, "a"), Message(.assistant, "b")]
        let open = try form.encode(asked, tokenizer, asks: false)
        #expect(open.last == Self.endOfTurn)
        #expect(Array(open.dropLast()) == tokenizer.encoded.last?.utf8.map(Int32.init))
    }

    @Test func aModelWithoutTurnsSaysWhy() throws {
        let none = try parseJson(#"{"turns": null, "reason": "it goes on with a text"}"#, where: "m")
        let form = try ChatFormat(none.fields(where: "m"), vocabSize: 8)
        #expect(form.turns == nil)
        for (form, reason) in [(form, "it goes on with a text"), (.unknown, "older than")] {
            #expect {
                try form.encode([Message(.user, "a")], LetterTokenizer())
            } throws: {
                (($0 as? PromptError)?.message ?? "").contains(reason)
            }
        }
        let silent = try parseJson(#"{"turns": null, "reason": null}"#, where: "m").fields(where: "m")
        #expect(throws: BadInput.self) { try ChatFormat(silent, vocabSize: 8) }
    }

    @Test(
        arguments: [
            ([], true, "no message"),
            ([.system], true, "found system"),
            ([.assistant], true, "found assistant"),
            ([.user, .user], true, "found user, user"),
            ([.user, .system, .user], true, "found user, system"),
            ([.user, .assistant], true, "the user last"),
            ([.user, .user], false, "the user first"),
        ] as [([Role], Bool, String)])
    func messagesInAnotherOrderAreRefused(roles: [Role], asks: Bool, words: String) throws {
        let form = try form("llama 3")
        #expect {
            try form.encode(roles.map { Message($0, "a") }, LetterTokenizer(), asks: asks)
        } throws: {
            (($0 as? PromptError)?.message ?? "").contains(words)
        }
    }

    @Test(
        arguments: [
            ("begin", "[8]", "chat: turns: begin: expected a token of the vocabulary of 8, found 8"),
            ("begin", "[-1]", "begin: expected a token of the vocabulary"),
            ("begin", "[1.0]", "begin: expected a token of the vocabulary"),
            ("begin", "[4294967297]", "begin: expected a token of the vocabulary"),
            ("answer", #"[{"strftime": "%q"}]"#, "answer: expected a time"),
            ("answer", #"[{"strftime": 1}]"#, "answer: expected a time"),
            ("answer", #"[{"a": 1, "strftime": "%d"}]"#, "answer: expected a time"),
            ("answer", "[{}]", "answer: expected a time"),
            ("answer", #"[""]"#, "answer: expected texts that can be encoded"),
            ("no_system", "[null]", "no_system: expected token ids, texts and times"),
            ("no_system", #""x""#, "expected a list"),
            ("trim", "true", "trim: expected a list"),
            ("trim", "1", "trim: expected a list"),
            ("trim", #"["tool"]"#, #"trim: expected names of roles, found "tool""#),
            ("thoughts_end", #""""#, "thoughts_end: expected a text, found none"),
            ("thoughts_end", "1", "thoughts_end: expected a string"),
            ("user", "null", "user: expected an object"),
            (
                "system", #"{"user": "middle", "before": "", "after": ""}"#,
                "system: user: expected first or last"
            ),
            ("system", #"{"user": "last", "before": 1, "after": ""}"#, "system: before: expected a string"),
            ("user", #"{"prefix": []}"#, "the key suffix is missing"),
            (
                "begin", "[" + Array(repeating: "1", count: 257).joined(separator: ",") + "]",
                "at most 256 pieces, found 257"
            ),
        ] as [(String, String, String)])
    func turnsOfAnotherFormAreRefusedWithTheirPlace(key: String, value: String, words: String) throws {
        var keys = [
            "begin": "[1]", "no_system": "[]", "answer": "[]", "trim": "[]",
            "system": Self.around, "user": Self.around, "assistant": Self.around, "thoughts_end": "null",
        ]
        func read(_ keys: [String: String]) throws -> ChatFormat {
            let turns = keys.map { "\"\($0)\": \($1)" }.joined(separator: ",")
            let chat = try parseJson(#"{"turns": {\#(turns)}, "reason": null}"#, where: "chat")
            return try ChatFormat(chat.fields(where: "chat"), vocabSize: 8)
        }
        #expect(try read(keys).turns != nil)
        for missing in ["system", "thoughts_end"] {
            var fewer = keys
            fewer[missing] = nil
            #expect(throws: BadInput.self) { try read(fewer) }
        }
        keys[key] = value
        #expect {
            try read(keys)
        } throws: {
            (($0 as? BadInput)?.message ?? "").contains(words)
        }
    }
}
