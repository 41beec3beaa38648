import Foundation
import Testing

@testable import LlamaKit

private func conversation(_ id: String = "a1", changedMs: Int64 = 5) throws -> Conversation {
    Conversation(
        id: id, title: "Of dogs", model: "demo", changedMs: changedMs, system: "You like dogs.",
        sampling: try Sampling(temperature: 0.3, topK: 40, seed: 7),
        turns: [
            SavedTurn(Message(.user, "Hi \"you\"\n\u{1} 🐶 e\u{301}")),
            SavedTurn(
                Message(.assistant, "Hel"), isWhole: false,
                figures: AnswerFigures(
                    newTokens: 1, tokensPerS: 0, timeToFirstTokenS: 0.25, contextTokens: 12)),
            SavedTurn(
                Message(.assistant, "lo"),
                figures: AnswerFigures(
                    newTokens: 9, tokensPerS: 12.5, timeToFirstTokenS: 1e-5, contextTokens: 21,
                    maxContext: 128, memoryBytes: 5 << 30, thermal: "fair")),
        ],
        draft: "and")
}

@Suite("Conversations that are kept")
struct ConversationStoreTests {
    private let folder: TestFolder
    private var kept: ConversationStore { ConversationStore(folder: folder.url.at("kept")) }
    private func file(_ name: String) -> URL { folder.url.at("kept").at(name) }

    init() throws { folder = try TestFolder() }

    @Test func aConversationComesBackAsItWas() throws {
        #expect(kept.list() == [])
        try kept.save(conversation())
        #expect(try kept.load("a1") == conversation())
        let text = try conversation().turns[0].message.text
        #expect(try sameBytes(kept.load("a1").turns[0].message.text, text))
        let other = Conversation(id: "a1", title: "", model: "demo", changedMs: 6)
        try kept.save(other)
        #expect(try kept.load("a1") == other)
        #expect(namesIn(folder.url.at("kept")) == ["a1.json"])
    }

    @Test func damageAtAnyByteIsReportedAndTheFileIsKept() throws {
        try kept.save(conversation())
        let file = file("a1.json")
        let whole = try stored(file)
        for at in whole.indices {
            var next = whole
            next[at] &+= 1
            var other = whole
            other[at] ^= 0x20
            var lost = whole
            lost.remove(at: at)
            for damaged in [Array(whole.prefix(at)), next, other, lost] {
                #expect(throws: BadInput.self, "byte \(at)") {
                    try Conversation.parse(damaged, where: "a1.json")
                }
                if at % 16 == 0 { try requireReported(damaged, at: file) }
            }
        }
    }

    private func requireReported(_ damaged: [UInt8], at file: URL) throws {
        try store(damaged, at: file)
        guard case .damaged("a1", let reason)? = kept.list().first else {
            Issue.record("\(damaged.count) bytes were taken")
            return
        }
        #expect(!reason.isEmpty)
        #expect(try stored(file) == damaged)
    }

    @Test func theListHasTheNewestFirstAndTheDamagedLast() throws {
        for (id, changed) in [("a", 3), ("b", 9), ("c", 6), ("d", 6)] as [(String, Int64)] {
            try kept.save(conversation(id, changedMs: changed))
        }
        try store(Array("{".utf8), at: file("0.json"))
        try store(Array("{".utf8), at: file("d.json.part"))
        try makeFolder(file("1.json"))
        #expect(kept.list().map(\.id) == ["b", "c", "d", "a", "0", "1"])
        try kept.delete("0")
        try kept.delete("1")
        try kept.rename("a", to: "Of cats")
        #expect(try kept.load("a").title == "Of cats")
        #expect(kept.list().map(\.id) == ["b", "c", "d", "a"])
    }

    @Test func whatIsDeletedIsGoneAlsoWhatAKillLeftOfIt() throws {
        try kept.save(conversation())
        try store(conversation().write(), at: file("a1.json.part"))
        try kept.delete("a1")
        #expect(namesIn(folder.url.at("kept")) == [])
    }

    @Test func whatCannotBeWrittenLosesNothing() throws {
        try kept.save(conversation())
        try makeFolder(file("a1.json.part/in the way"))
        let error = try refusal { try kept.save(conversation(changedMs: 6)) }
        #expect(error is BadInput)
        #expect(error.message.hasPrefix("the conversation cannot be kept: "))
        #expect(try kept.load("a1").changedMs == 5)
    }

    #if os(Linux)
        @Test func aFullStorageLosesNothing() throws {
            try kept.save(conversation())
            symlink("/dev/full", file("a1.json.part").path)
            let error = try refusal { try kept.save(conversation(changedMs: 6)) }
            #expect(error.message == "the conversation cannot be kept: No space left on device")
            #expect(try kept.load("a1").changedMs == 5)
            try kept.save(conversation(changedMs: 7))
            #expect(try kept.load("a1").changedMs == 7)
        }
    #endif

    @Test func whatIsNoIdOfAConversationIsRefusedAndANewerFileIsNamed() throws {
        for bad in ["../x", "", "a/b", "a/\u{301}b", "none"] {
            #expect(throws: BadInput.self, "\(bad)") { try kept.load(bad) }
        }
        #expect(throws: BadInput.self) { try kept.delete("../x") }
        #expect(throws: BadInput.self) { try kept.save(conversation("../x")) }
        try kept.save(conversation())
        let newer = String(decoding: try conversation().write(), as: UTF8.self)
            .replacingOccurrences(of: "\"format_version\":1", with: "\"format_version\":2")
        try store(Array(newer.utf8), at: file("a1.json"))
        #expect(
            try refusal { _ = try kept.load("a1") }.message
                == "a1.json has format_version 2; this app reads 1")
        try store(conversation().write(), at: file("b.json"))
        #expect(try refusal { _ = try kept.load("b") }.message == "b.json is the conversation a1")
        #expect(kept.newId() != kept.newId())
        #expect(kept.newId().utf8.count == 16)
    }

    @Test func aFigureThatIsNoNumberLosesNoConversation() throws {
        var odd = try conversation()
        let figures = AnswerFigures(
            newTokens: 1, tokensPerS: .nan, timeToFirstTokenS: .infinity, contextTokens: 1)
        odd.turns = [SavedTurn(Message(.assistant, "x"), figures: figures)]
        try kept.save(odd)
        #expect(try kept.load("a1").turns[0].figures?.tokensPerS == 0)
    }

    /// What the Android app writes is read here, and the other way round: the bytes that are hashed are
    /// those that stand in the file.
    @Test func aFileOfTheAndroidAppIsRead() throws {
        let content =
            #"{"id":"k","title":"t","model":"m","changed_ms":1,"system":"","sampling":{"temperature":0.7,"#
            + #""top_p":0.95,"top_k":0,"seed":null,"min_p":1.0E-5,"repetition_penalty":1.0},"turns":[],"#
            + #""draft":""}"#
        let sha256 = Sha256.hex(of: Array(content.utf8))
        let text = #"{"format_version":1,"sha256":"\#(sha256)","conversation":\#(content)}"#
        let found = try Conversation.parse(Array(text.utf8), where: "k.json")
        #expect(try found.sampling == Sampling(minP: 1e-5))
    }

    @Test func aPersonCanReadItsText() throws {
        #expect(
            try conversation().toText()
                == "Of dogs\n\n[system]\nYou like dogs.\n\n[user]\nHi \"you\"\n\u{1} 🐶 e\u{301}\n"
                + "\n[assistant]\nHel [...]\n\n[assistant]\nlo\n")
    }
}
