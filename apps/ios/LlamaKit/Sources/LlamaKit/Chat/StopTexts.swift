/// Finds the texts that end an answer, in pieces of text as they come.
///
/// Nothing is released that may be the beginning of one of them. Texts are compared as UTF-8: two ways to
/// write the same letter are two texts, as everywhere else.
public struct StopTexts: Sendable {
    private let stops: [[UInt8]]
    private var held: [UInt8] = []

    /// Whether a stop text was found; nothing is released after it.
    public private(set) var isFound = false

    /// Look for texts.
    ///
    /// - Parameter stops: texts of at least one character
    /// - Throws: ``BadInput`` if one of them is empty
    public init(_ stops: [String]) throws {
        if stops.contains(where: \.isEmpty) {
            throw BadInput(
                "stop: expected texts of at least one character, found \"\"", hint: "Take it out.")
        }
        self.stops = stops.map { Array($0.utf8) }
    }

    /// Take in new text and return what can be shown; it ends before the first stop text.
    public mutating func release(_ text: String) -> String {
        if isFound { return "" }
        if stops.isEmpty { return text }
        held += text.utf8
        let begin = stops.compactMap { firstPlace(of: $0) }.min()
        isFound = begin != nil
        let cut = begin ?? (held.count - (stops.map { begunLength($0) }.max() ?? 0))
        let shown = String(decoding: held[..<cut], as: UTF8.self)
        held = isFound ? [] : Array(held[cut...])
        return shown
    }

    /// Return what was held back; the text has ended without a stop text.
    public mutating func rest() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// Return where a stop text begins in the held text; nil: nowhere.
    private func firstPlace(of stop: [UInt8]) -> Int? {
        guard held.count >= stop.count else { return nil }
        return (0...(held.count - stop.count)).first { held[$0...].starts(with: stop) }
    }

    /// Return how many bytes of a stop text the held text ends with, less than all.
    ///
    /// The held text is of whole characters, so that these bytes are too.
    private func begunLength(_ stop: [UInt8]) -> Int {
        let most = min(stop.count - 1, held.count)
        return (0...most).last { held.suffix($0).elementsEqual(stop.prefix($0)) } ?? 0
    }
}
