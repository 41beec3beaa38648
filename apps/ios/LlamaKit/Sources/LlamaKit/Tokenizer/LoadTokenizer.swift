import Foundation

/// Load the tokenizer of a bundle, with what the tokenizer_config.json beside it says of it.
///
/// tokenizer.json counts, because fine-tunes change their tokens there. Where it is the one that an
/// export makes of tokenizer.model, the latter is read, which is faster. A SentencePiece
/// tokenizer.model is not read: the tokenizer.json beside it was proved to give the same ids.
///
/// - Parameter folder: folder of a bundle
/// - Throws: ``BundleError`` if there is no tokenizer, it is damaged, or of a kind that is not known here;
///   ``BadInput`` if a file is no JSON, or has keys of other kinds than expected
public func loadTokenizer(_ folder: URL) throws -> any Tokenizer {
    let json = folder.appending(path: tokenizerJsonFile)
    let model = folder.appending(path: tokenizerModelFile)
    let settings = try TokenSettings(folder: folder)
    guard isFile(json) else {
        if isFile(model) { return try load(model.lastPathComponent, readTokenizerFile(model), settings) }
        let expected = "expected \(tokenizerJsonFile) or \(tokenizerModelFile)"
        throw BundleError("\(folder.path) holds no tokenizer: \(expected)", hint: getAnotherTokenizer)
    }
    let data = try readTokenizerFile(json)
    if isFile(model) {
        let ranks = try readTokenizerFile(model)
        if try kindOfTokenizer(ranks, where: model.lastPathComponent) == .ranks {
            let tokens = try RankTokens(ranks, where: model.lastPathComponent)
            if Llama3Json.isMade(of: tokens, data) { return tokens.tokenizer() }
        }
    }
    return try load(json.lastPathComponent, data, settings)
}

private func load(_ name: String, _ data: [UInt8], _ settings: TokenSettings) throws -> any Tokenizer {
    switch try kindOfTokenizer(data, where: name) {
    case .json: return try JsonTokenizerFile.load(data, settings, where: name)
    case .ranks: return try RankTokens(data, where: name).tokenizer()
    case .pieces:
        let expected = "expected a \(tokenizerJsonFile) beside it"
        throw BundleError(
            "\(name) is a SentencePiece model, which this app does not read: \(expected)",
            hint:
                "Export the model again. Where the export says that no \(tokenizerJsonFile) gives the same "
                + "ids, take another model.")
    }
}
