import Foundation

/// Cuts an answer that grows into sentences, so that a screen reader speaks those and not tokens.
public struct SentenceCutter: Sendable {
    private static let marks = Set(".!?:;…؟۔।".unicodeScalars)
    private static let wideMarks = Set("。！？".unicodeScalars)

    private var said = 0

    public init() {}

    /// Hear the answer so far, and return the sentences that are new and whole; nil: none.
    public mutating func update(_ text: String) -> String? {
        let scalars = Array(text.unicodeScalars)
        if scalars.count < said { said = 0 }
        let end = lastEnd(scalars)
        if end <= said { return nil }
        defer { said = end }
        return spoken(scalars[said..<end])
    }

    /// Hear that the answer is whole, and return what was not said; nil: nothing.
    public mutating func end(_ text: String) -> String? {
        let rest = Array(text.unicodeScalars).dropFirst(said)
        said = 0
        return spoken(rest)
    }

    /// Return where the last whole sentence ends: a mark with a blank behind it, or a line.
    private func lastEnd(_ scalars: [Unicode.Scalar]) -> Int {
        for at in stride(from: scalars.count - 1, through: said, by: -1) {
            let isWide = Self.wideMarks.contains(scalars[at])
            let isMark = scalars[at] == " " && at > 0 && Self.marks.contains(scalars[at - 1])
            if scalars[at] == "\n" || isWide || isMark { return at + 1 }
        }
        return said
    }

    private func spoken(_ part: ArraySlice<Unicode.Scalar>) -> String? {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: part)
        let sentence = String(text).trimmingCharacters(in: .whitespacesAndNewlines)
        return sentence.isEmpty ? nil : sentence
    }
}
