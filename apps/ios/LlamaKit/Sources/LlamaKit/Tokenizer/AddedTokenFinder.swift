/// A stretch of text between added tokens, or the id of one.
enum Section: Equatable {
    case text(Range<Int>)
    case token(Int32)
}

/// Finds added tokens in a text, the longest first where several begin at one place.
///
/// Control tokens are found too, and left as text, because no other token begins inside of one.
struct AddedTokenFinder: Sendable {
    private let names: SortedNames
    private let tokens: [(id: Int32, token: AddedToken, isSpecial: Bool)]
    private let findsAny: Bool

    /// Make a finder.
    ///
    /// - Parameters:
    ///   - wanted: the text to look for, which may be empty and then is nowhere, and the id of its token
    ///   - added: all added tokens
    init(_ wanted: [(text: [UInt8], id: Int32)], of added: AddedTokens) {
        let tokens = wanted.compactMap { each in
            added[each.id].map { (id: each.id, token: $0, isSpecial: added.isSpecial($0)) }
        }
        self.tokens = tokens
        names = SortedNames(wanted.map(\.text))
        findsAny = tokens.contains { !$0.isSpecial }
    }

    /// Cut a text at the tokens.
    func cut(_ text: Utf8Text) -> [Section] {
        if text.isEmpty || !findsAny { return [.text(0..<text.count)] }
        var sections: [Section] = []
        var kept = 0
        var at = 0
        while at < text.count {
            guard let match = names.longest(in: text, at: at) else {
                at += 1
                continue
            }
            let (id, token, isSpecial) = tokens[match.number]
            let end = at + match.count
            // What an earlier token has taken is no longer before this one.
            let begin = token.takesBlanksBefore ? max(kept, beginOfBlanks(text, before: at)) : at
            let after = token.takesBlanksAfter ? endOfBlanks(text, from: end) : end
            if begin < after && !isSpecial {
                if kept < begin { sections.append(.text(kept..<begin)) }
                sections.append(.token(id))
                kept = after
            }
            at = end
        }
        if kept < text.count { sections.append(.text(kept..<text.count)) }
        return sections
    }

    private func beginOfBlanks(_ text: Utf8Text, before end: Int) -> Int {
        var at = end
        while at > 0 {
            let before = text.characterBefore(at)
            if !isBlank(text.character(at: before).code) { break }
            at = before
        }
        return at
    }

    private func endOfBlanks(_ text: Utf8Text, from begin: Int) -> Int {
        var at = begin
        while at < text.count {
            let (code, next) = text.character(at: at)
            if !isBlank(code) { break }
            at = next
        }
        return at
    }

    private func isBlank(_ code: UInt32) -> Bool { CharacterClasses.shared.kind(of: code) == .blank }
}

/// Texts in order, of which the longest at a place is found in as many halvings as it has bytes,
/// however many begin alike.
private struct SortedNames: Sendable {
    private var sorted: [(text: [UInt8], number: Int)] = []

    /// Where those are that begin with each byte `[256]`.
    private var beginning = Array(repeating: 0..<0, count: 256)

    /// Put texts in order; an empty one is left out, and so is a later one of the same bytes.
    init(_ texts: [[UInt8]]) {
        let numbered = texts.enumerated().map { (text: $1, number: $0) }.filter { !$0.text.isEmpty }
        for each in numbered.sorted(by: Self.isBefore) where each.text != sorted.last?.text {
            sorted.append(each)
        }
        for (place, each) in sorted.enumerated() {
            let first = Int(each.text[0])
            let begin = beginning[first].isEmpty ? place : beginning[first].lowerBound
            beginning[first] = begin..<place + 1
        }
    }

    private static func isBefore(_ left: ([UInt8], Int), _ right: ([UInt8], Int)) -> Bool {
        left.0 == right.0 ? left.1 < right.1 : left.0.lexicographicallyPrecedes(right.0)
    }

    /// Return the number and the size of the longest text that stands at a place, or nil.
    func longest(in text: Utf8Text, at begin: Int) -> (number: Int, count: Int)? {
        // All of the range begin as the text does, as far as it was looked at.
        var (low, high) = (beginning[Int(text[begin])].lowerBound, beginning[Int(text[begin])].upperBound)
        var found: Int?
        var depth = 1
        while low < high {
            if sorted[low].text.count == depth {
                found = low
                low += 1
            }
            if begin + depth == text.count { break }
            let byte = text[begin + depth]
            low = firstNot(low, high) { sorted[$0].text[depth] < byte }
            high = firstNot(low, high) { sorted[$0].text[depth] == byte }
            depth += 1
        }
        return found.map { (sorted[$0].number, sorted[$0].text.count) }
    }

    /// Return the first place for which it is not so; it is so for none after it.
    private func firstNot(_ begin: Int, _ end: Int, isSo: (Int) -> Bool) -> Int {
        var (low, high) = (begin, end)
        while low < high {
            let middle = (low + high) / 2
            if isSo(middle) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
