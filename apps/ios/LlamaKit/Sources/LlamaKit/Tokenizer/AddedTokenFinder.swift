/// A stretch of text between added tokens, or the id of one.
enum Section: Equatable {
    case text(Range<Int>)
    case token(Int32)
}

/// Finds added tokens in a text, the longest first where several begin at one place.
///
/// Control tokens are found too, and left as text, because no other token begins inside of one.
struct AddedTokenFinder: Sendable {
    private struct Candidate: Sendable {
        let text: [UInt8]
        let id: Int32
        let token: AddedToken
        let isSpecial: Bool
    }

    private var candidates: [[Candidate]] = Array(repeating: [], count: 256)
    private let findsAny: Bool

    /// Make a finder.
    ///
    /// - Parameters:
    ///   - tokens: what to find: the text to look for, and the id
    ///   - added: all added tokens
    init(_ tokens: [(text: [UInt8], id: Int32)], of added: AddedTokens) {
        var findsAny = false
        for (text, id) in tokens.sorted(by: { $0.text.count > $1.text.count }) {
            guard let token = added[id] else { continue }
            let isSpecial = added.isSpecial(token)
            findsAny = findsAny || !isSpecial
            guard let first = text.first else { continue }
            let candidate = Candidate(text: text, id: id, token: token, isSpecial: isSpecial)
            candidates[Int(first)].append(candidate)
        }
        self.findsAny = findsAny
    }

    /// Cut a text at the tokens.
    func cut(_ text: Utf8Text) -> [Section] {
        if text.isEmpty || !findsAny { return [.text(0..<text.count)] }
        var sections: [Section] = []
        var kept = 0
        var at = 0
        while at < text.count {
            guard let found = candidates[Int(text[at])].first(where: { text.has($0.text, at: at) }) else {
                at += 1
                continue
            }
            let end = at + found.text.count
            if !found.isSpecial {
                let begin = found.token.takesBlanksBefore ? beginOfBlanks(text, before: at) : at
                if kept < begin { sections.append(.text(kept..<begin)) }
                sections.append(.token(found.id))
                kept = found.token.takesBlanksAfter ? endOfBlanks(text, from: end) : end
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
