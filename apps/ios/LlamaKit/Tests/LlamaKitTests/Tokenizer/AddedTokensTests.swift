import Testing

@testable import LlamaKit

/// Numbers and sections as the library `tokenizers` 0.23 gives them.
@Suite("Added tokens")
struct AddedTokensTests {
    private func token(
        _ name: String, before: Bool = false, after: Bool = false, isSpecial: Bool = false
    ) -> AddedToken {
        AddedToken(name: name, takesBlanksBefore: before, takesBlanksAfter: after, isSpecial: isSpecial)
    }

    /// Cut a text at added tokens: ids as `#0`, and texts as they are.
    private func cut(_ text: String, _ added: AddedTokens) -> [String] {
        let wanted = added.tokens.map { (text: Array($0.token.name.utf8), id: $0.id) }
        let finder = AddedTokenFinder(wanted, of: added)
        var text = text
        return text.withUTF8 { text in
            finder.cut(text).map { section in
                switch section {
                case .token(let id): "#\(id)"
                case .text(let range): String(decoding: text[range], as: UTF8.self)
                }
            }
        }
    }

    /// Cut a text at tokens with the ids 0, 1 and so on.
    private func cut(_ text: String, _ tokens: [AddedToken]) -> [String] {
        var added = AddedTokens(Vocabulary([]))
        added.add(tokens)
        return cut(text, added)
    }

    @Test func aVocabularyWithAGapNumbersNewTokensFromItsCountOnAndALaterCallFromItsEnd() {
        var added = AddedTokens(Vocabulary([("a", 0), ("b", 1), ("<pad>", 9)]))
        added.add([token("<pad>", isSpecial: true), token("<x>"), token("<y>")])
        #expect(added.tokens.map(\.id) == [9, 3, 4])
        #expect(added.tokens.map(\.token.name) == ["<pad>", "<x>", "<y>"])
        added.add([token("<z>"), token("<x>", after: true)])
        #expect(added[10]?.name == "<z>")
        #expect(added[3]?.takesBlanksAfter == true)
    }

    @Test func aTokenOnceSpecialStaysTextWhateverIsSaidOfItLater() {
        var added = AddedTokens(Vocabulary([]))
        added.add([token("<x>", isSpecial: true)])
        added.add([token("<x>")])
        #expect(added.specialTokens().isEmpty)
        #expect(cut("a<x>", added) == ["a<x>"])
    }

    @Test func theLongestTokenAtAPlaceCountsAndAControlTokenHidesWhatIsInIt() {
        let tokens = [
            token("<t"), token("<to>"), token("<tool>"), token("<s>", isSpecial: true), token("s>"),
        ]
        #expect(cut("<tool><to><tool<t", tokens) == ["#2", "#1", "#0", "ool", "#0"])
        #expect(cut("<s>s><", tokens) == ["<s>", "#4", "<"])
    }

    @Test func blanksBelongToTheTokenThatTakesThemFirst() {
        let after = token("<x>", after: true)
        #expect(cut("<x> \n c", [after]) == ["#0", "c"])
        // A token of blanks is found in what was taken, unless it takes blanks before it itself.
        #expect(cut("<x>\nc", [after, token("\n")]) == ["#0", "#1", "c"])
        #expect(cut("<x>\nc\n", [after, token("\n", before: true)]) == ["#0", "c", "#1"])
        #expect(cut("<x>  bc", [after, token(" b", before: true)]) == ["#0", "#1", "c"])
        #expect(cut("a  <x>", [token("a "), token("<x>", before: true)]) == ["#0", "#1"])
        #expect(cut("a\u{3000} <x>", [token("<x>", before: true)]) == ["a", "#0"])
    }

    @Test func whatIsFoundIsWhatTryingEveryTokenFinds() {
        var random = SeededGenerator(seed: 3)
        func text(_ most: Int) -> String {
            let letters = ["a", "b", "<", "\u{1F600}", "\u{1F601}"]
            return (0...Int.random(in: 0..<most, using: &random)).map { _ in
                letters.randomElement(using: &random)!
            }.joined()
        }
        for _ in 0..<300 {
            var names: [String] = []
            for name in (0...Int.random(in: 0..<20, using: &random)).map({ _ in text(4) })
            where !names.contains(name) { names.append(name) }
            let searched = text(40)
            var expected: [String] = []
            var rest = Substring(searched)
            while !rest.isEmpty {
                let found = names.filter { rest.hasPrefix($0) }.max { $0.utf8.count < $1.utf8.count }
                if let found {
                    expected.append("#\(names.firstIndex(of: found)!)")
                } else if let last = expected.last, !last.hasPrefix("#") {
                    expected[expected.count - 1] = last + rest.prefix(1)
                } else {
                    expected.append(String(rest.prefix(1)))
                }
                rest = rest.dropFirst(found?.count ?? 1)
            }
            #expect(cut(searched, names.map { token($0) }) == expected)
        }
    }

    @Test func tensOfThousandsOfTokensThatBeginAlikeCostNoMoreThanAFew() {
        let tokens = (0..<30_000).map { token("<custom_token_\($0)>") }
        let text = String(repeating: "<custom_token_7><custom_token_x", count: 20_000)
        let begun = ContinuousClock.now
        #expect(
            cut(text, tokens) == Array(repeating: ["#7", "<custom_token_x"], count: 20_000).flatMap { $0 })
        var added = AddedTokens(Vocabulary([]))
        for each in tokens { added.add([each]) }
        // Trying each of them at each place takes thousands of millions of comparisons.
        #expect(ContinuousClock.now - begun < .seconds(20))
    }
}
