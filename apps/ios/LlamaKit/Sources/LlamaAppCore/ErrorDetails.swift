import LlamaKit

private let general: Set<ErrorKind> = [.server, .damaged, .engine]

extension AppError {
    /// What stands below the words for its kind, in English: the message as a sentence, and what to do
    /// where those words are so general that they leave out what is known of the one case.
    public var details: String {
        let more = sentence(message)
        return general.contains(kind) && !hint.isEmpty ? "\(more) \(hint)" : more
    }
}

private func sentence(_ text: String) -> String {
    // A file's name stays as it is.
    let isWord = text.prefix { $0 != " " }.allSatisfy(\.isLetter)
    let begun = isWord ? text.prefix(1).uppercased() + text.dropFirst() : text
    return begun.hasSuffix(".") ? begun : begun + "."
}
