/// Cuts a text into pieces that lie one after the other, each of which is merged by itself.
protocol Splitter: Sendable {
    /// Return where the piece ends that begins at an index.
    ///
    /// - Parameters:
    ///   - text: the text
    ///   - begin: index of a character before `end`
    ///   - end: where the text ends; what follows is not looked at
    func endOfPiece(_ text: Utf8Text, from begin: Int, to end: Int) -> Int
}

extension [any Splitter] {
    /// Cut a part of a text by each splitter in turn, each piece anew, and take the last one's pieces.
    func split(_ text: Utf8Text, from begin: Int, to end: Int, take: (Int, Int) -> Void) {
        split(step: 0, text, from: begin, to: end, take: take)
    }

    private func split(
        step: Int, _ text: Utf8Text, from begin: Int, to end: Int, take: (Int, Int) -> Void
    ) {
        if step == count { return take(begin, end) }
        let splitter = self[step]
        var at = begin
        while at < end {
            let piece = splitter.endOfPiece(text, from: at, to: end)
            split(step: step + 1, text, from: at, to: piece, take: take)
            at = piece
        }
    }
}

/// Splits as Llama 3's pattern does, ``pattern``.
///
/// Every alternative stands at the top with nothing after it, so the first that begins to match is
/// taken whole and nothing is ever tried twice.
struct Llama3Splitter: Splitter {
    static let pattern =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"#
        + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

    private static let mostDigits = 3

    let classes: CharacterClasses

    func endOfPiece(_ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        let (first, next) = text.character(at: begin)
        if first == apostrophe, let ending = endOfEnding(text, from: begin, to: end) { return ending }
        let kind = classes.kind(of: first)
        if kind == .letter { return classes.endOfRun(.letter, text, from: next, to: end) }
        if kind == .number { return endOfNumber(text, from: begin, to: end) }
        let nextKind = next < end ? classes.kind(of: text.character(at: next).code) : .blank
        if nextKind == .letter && !isLineEnd(text[begin]) {
            return classes.endOfRun(.letter, text, from: next, to: end)
        }
        if kind == .other { return endOfOthers(text, from: begin, to: end) }
        if nextKind == .other && first == blank { return endOfOthers(text, from: next, to: end) }
        return endOfBlanks(text, from: begin, to: end)
    }

    private func endOfEnding(_ text: Utf8Text, from begin: Int, to end: Int) -> Int? {
        let (one, second) = letter(text, at: begin + 1, to: end)
        if let one, "stmd".utf8.contains(one) { return second }
        let (two, third) = letter(text, at: second, to: end)
        switch (one, two) {
        case (UInt8(ascii: "l"), UInt8(ascii: "l")), (UInt8(ascii: "r"), UInt8(ascii: "e")),
            (UInt8(ascii: "v"), UInt8(ascii: "e")):
            return third
        default: return nil
        }
    }

    private func letter(_ text: Utf8Text, at index: Int, to end: Int) -> (letter: UInt8?, next: Int) {
        guard index < end else { return (nil, index) }
        let (code, next) = text.character(at: index)
        return (classes.endingLetter(code), next)
    }

    private func endOfNumber(_ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        var at = begin
        for _ in 0..<Self.mostDigits where at < end {
            let (digit, next) = text.character(at: at)
            if classes.kind(of: digit) != .number { break }
            at = next
        }
        return at
    }

    private func endOfOthers(_ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        var at = classes.endOfRun(.other, text, from: begin, to: end)
        while at < end && isLineEnd(text[at]) { at += 1 }
        return at
    }

    private func endOfBlanks(_ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        let after = classes.endOfRun(.blank, text, from: begin, to: end)
        if let last = text[begin..<after].lastIndex(where: isLineEnd) { return last + 1 }
        return withoutLast(text, from: begin, after: after, to: end)
    }
}

/// Splits as GPT-2's pattern does:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
struct Gpt2Splitter: Splitter {
    private static let endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { Array($0.utf8) }

    let classes: CharacterClasses

    func endOfPiece(_ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        if text[begin] == UInt8(ascii: "'") {
            let ending = Self.endings.first { begin + $0.count <= end && text.has($0, at: begin) }
            if let ending { return begin + ending.count }
        }
        let first = text[begin] == UInt8(ascii: " ") && begin + 1 < end ? begin + 1 : begin
        let kind = classes.kind(of: text.character(at: first).code)
        if kind != .blank { return classes.endOfRun(kind, text, from: first, to: end) }
        let after = classes.endOfRun(.blank, text, from: begin, to: end)
        return withoutLast(text, from: begin, after: after, to: end)
    }
}

/// Splits digits off: each for itself, or a row of them together.
struct DigitSplitter: Splitter {
    let classes: CharacterClasses
    let alone: Bool

    func endOfPiece(_ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        let (first, second) = text.character(at: begin)
        let isDigit = classes.splitsOff(first)
        var at = second
        if isDigit && alone { return at }
        while at < end {
            let (code, next) = text.character(at: at)
            if classes.splitsOff(code) != isDigit { break }
            at = next
        }
        return at
    }
}

private let apostrophe = UInt32(UInt8(ascii: "'"))
private let blank = UInt32(UInt8(ascii: " "))

private func isLineEnd(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r")
}

extension CharacterClasses {
    @inline(__always)
    fileprivate func endOfRun(_ kind: Kind, _ text: Utf8Text, from begin: Int, to end: Int) -> Int {
        var at = begin
        while at < end {
            let (code, next) = text.character(at: at)
            if self.kind(of: code) != kind { break }
            at = next
        }
        return at
    }
}

/// Leave the last blank of a row to the word after it.
private func withoutLast(_ text: Utf8Text, from begin: Int, after: Int, to end: Int) -> Int {
    if after == end { return after }
    let last = text.characterBefore(after)
    return last == begin ? after : last
}
