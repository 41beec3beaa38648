import Testing

@testable import LlamaKit

private func pieces(_ text: String, _ splitters: [any Splitter]) -> [String] {
    var text = text
    return text.withUTF8 { text in
        var found: [String] = []
        splitters.split(text, from: 0, to: text.count) { begin, end in
            found.append(String(decoding: text[begin..<end], as: UTF8.self))
        }
        return found
    }
}

private func end(_ splitter: any Splitter, _ text: String, to end: Int) -> Int {
    var text = text
    return text.withUTF8 { splitter.endOfPiece($0, from: 0, to: end) }
}

@Suite("Patterns that cut text")
struct SplittersTests {
    private let llama3 = Llama3Splitter(classes: CharacterClasses.shared)
    private let gpt2 = Gpt2Splitter(classes: CharacterClasses.shared)
    private let digits = DigitSplitter(classes: CharacterClasses.shared, alone: false)

    @Test func llama3sPatternCutsWhereItShould() {
        let text = "It'S 12345 x\u{661}\u{662}!?\r\n\n  \t we'LL'\u{17F}a  .b \n"
        let expected = [
            "It", "'S", " ", "123", "45", " x", "\u{661}\u{662}", "!?\r\n\n", "  \t", " we", "'LL",
            "'\u{17F}",
            "a", " ", " .", "b", " \n",
        ]
        #expect(pieces(text, [llama3]) == expected)
    }

    @Test func gpt2sPatternCutsWhereItShould() {
        let text = "It's 12345 x\u{661}!?\r\n\n  \t we'LL'ta  .b \n"
        let expected = [
            "It", "'s", " 12345", " x", "\u{661}", "!?", "\r\n\n  \t", " we", "'", "LL", "'t", "a", " ", " .",
            "b", " \n",
        ]
        #expect(pieces(text, [gpt2]) == expected)
    }

    @Test func stepsCutThePiecesOfThoseBeforeThem() {
        #expect(pieces("a 12b3", [digits, gpt2]) == ["a", " ", "12", "b", "3"])
        #expect(pieces("a b", []) == ["a b"])
        #expect(pieces("", [gpt2]).isEmpty)
    }

    @Test func blanksOfSeveralBytesAreLeftToTheWordAfterThem() {
        for splitter in [llama3, gpt2] as [any Splitter] {
            #expect(pieces("a\u{3000}\u{3000}.", [splitter]) == ["a", "\u{3000}", "\u{3000}", "."])
            #expect(pieces("\u{3000}.", [splitter]) == ["\u{3000}", "."])
        }
        #expect(pieces("\u{3000}\u{3000}a", [llama3]) == ["\u{3000}", "\u{3000}a"])
    }

    @Test func whatFollowsTheTextIsNotLookedAt() {
        for splitter in [llama3, gpt2] as [any Splitter] {
            #expect(end(splitter, "'s", to: 1) == 1)
            #expect(end(splitter, "'ll", to: 1) == 1)
            #expect(end(splitter, " a", to: 1) == 1)
            #expect(end(splitter, "  a", to: 2) == 2)
            #expect(end(splitter, "12a", to: 2) == 2)
        }
        #expect(end(llama3, "!\n", to: 1) == 1)
        #expect(end(llama3, "'l", to: 2) == 2)
    }
}
