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
    private static let demoVocabulary = 4096
    private static let endOfText: Int32 = 3841
    private static let around = #"{"prefix": [1], "suffix": ["x", {"strftime": "%d"}]}"#
    private let vectors: Vectors
    private let forms: [String: ChatFormat]

    init() throws {
        vectors = try Vectors("turns.json")
        var forms: [String: ChatFormat] = [:]
        try vectors.each("forms") {
            forms[try $0.text("name")] = try ChatFormat(
                $0.fields("chat"), vocabSize: Self.demoVocabulary)
        }
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
            let parts = try form.write(messagesOf($0), asks: true, now: localTime($0.text("time")))
            try #require(try parts.map(plain) == $0.list("parts"))
        }
    }

    @Test func textsAreEncodedJoinedAndTokensStay() throws {
        let tokenizer = LetterTokenizer()
        let form = try form("words")
        let ids = try form.encode([Message(.user, "hi")], tokenizer)
        #expect(tokenizer.encoded.count == 1)
        #expect(ids == tokenizer.encoded.flatMap { $0.utf8.map(Int32.init) })
        let asked = [Message(.user, "a"), Message(.assistant, "b")]
        let open = try form.encode(asked, tokenizer, asks: false)
        #expect(open.last == Self.endOfText)
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
        let form = try form("headers")
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
            ("trim", "1", "trim: expected true or false"),
            ("user", #"{"prefix": []}"#, "the key suffix is missing"),
            (
                "begin", "[" + Array(repeating: "1", count: 257).joined(separator: ",") + "]",
                "at most 256 pieces, found 257"
            ),
        ] as [(String, String, String)])
    func turnsOfAnotherFormAreRefusedWithTheirPlace(key: String, value: String, words: String) throws {
        var keys = [
            "begin": "[1]", "no_system": "[]", "answer": "[]", "trim": "true",
            "system": Self.around, "user": Self.around, "assistant": Self.around,
        ]
        func read() throws -> ChatFormat {
            let turns = keys.map { "\"\($0)\": \($1)" }.joined(separator: ",")
            let chat = try parseJson(#"{"turns": {\#(turns)}, "reason": null}"#, where: "chat")
            return try ChatFormat(chat.fields(where: "chat"), vocabSize: 8)
        }
        #expect(try read().turns != nil)
        keys[key] = value
        #expect {
            try read()
        } throws: {
            (($0 as? BadInput)?.message ?? "").contains(words)
        }
    }
}
