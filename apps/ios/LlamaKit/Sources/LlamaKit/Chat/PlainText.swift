/// What Python's `str.strip` takes away; other versions of Unicode have had other blanks.
private let blanks: Set<Unicode.Scalar> = [
    "\t", "\n", "\u{0B}", "\u{0C}", "\r", "\u{1C}", "\u{1D}", "\u{1E}", "\u{1F}", " ", "\u{85}", "\u{A0}",
    "\u{1680}", "\u{2000}", "\u{2001}", "\u{2002}", "\u{2003}", "\u{2004}", "\u{2005}", "\u{2006}",
    "\u{2007}", "\u{2008}", "\u{2009}", "\u{200A}", "\u{2028}", "\u{2029}", "\u{202F}", "\u{205F}", "\u{3000}",
]

/// Return a text without the white space at its ends, as Python's `str.strip` and Jinja's `trim` do.
public func stripped(_ text: String) -> String {
    let scalars = text.unicodeScalars
    guard let first = scalars.firstIndex(where: { !blanks.contains($0) }),
        let last = scalars.lastIndex(where: { !blanks.contains($0) })
    else { return "" }
    return String(scalars[first...last])
}

/// Return whether a text is blank, as Python sees it.
public func isBlank(_ text: String) -> Bool {
    text.unicodeScalars.allSatisfy { blanks.contains($0) }
}
