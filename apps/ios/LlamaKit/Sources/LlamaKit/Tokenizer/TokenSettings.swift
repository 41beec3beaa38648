import Foundation

/// What the tokenizer_config.json beside a tokenizer says of its tokens.
///
/// An export writes into it what older files said in other places.
struct TokenSettings: Sendable {
    /// Names that stand for control tokens, each once.
    let controlNames: [String]

    /// Tokens that were added to the vocabulary, in the order of their ids.
    let added: [AddedToken]

    /// Whether SentencePiece's text behind a token begins like a text of its own.
    let isLegacy: Bool

    private static let configFile = "tokenizer_config.json"
    private static let addedKey = "added_tokens_decoder"
    private static let named = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]
    private static let listed = ["additional_special_tokens", "extra_special_tokens"]

    /// Read the file of a bundle; where there is none, nothing is said.
    ///
    /// - Throws: ``BundleError`` if a token is spelled in no way that is known, or there are too many;
    ///   ``BadInput`` if the file is no JSON, or a key is of another kind
    init(folder: URL) throws {
        let file = folder.appending(path: Self.configFile)
        let keys: JsonObject =
            try isFile(file) ? jsonOfTokenizer(readTokenizerFile(file), where: Self.configFile) : [:]
        try self.init(JsonFields(keys, where: Self.configFile))
    }

    private init(_ keys: JsonFields) throws {
        let named = try Self.named.compactMap { key in
            try keys.json[key].flatMap { try Self.name($0, keys.at(key)) }
        }
        let listed = try Self.listed.flatMap { try Self.names(keys, $0) }
        try requireCount(listed.count, where: keys.place)
        var seen: Set<Utf8Key> = []
        controlNames = (named + listed).filter { seen.insert(Utf8Key($0)).inserted }
        let tokens =
            try keys.contains(Self.addedKey)
            ? keys.fields(Self.addedKey) : JsonFields([:], where: keys.at(Self.addedKey))
        var given: [(id: Int32, place: Int, token: AddedToken)] = []
        for (id, token) in tokens.json.entries {
            let number = try Self.id(id, tokens.place)
            given.append((number, given.count, try Self.added(token, tokens.at(shown(id)))))
        }
        try requireCount(given.count, where: tokens.place)
        added = given.sorted { ($0.id, $0.place) < ($1.id, $1.place) }.map(\.token)
        isLegacy = keys.json["legacy"] != .bool(false)
    }

    private static func id(_ key: String, _ place: String) throws -> Int32 {
        guard let id = Int32(key), id >= 0 else {
            throw BundleError(
                "\(place): expected ids of tokens as keys, found \(shown(key))", hint: getAnotherTokenizer)
        }
        return id
    }

    private static func name(_ value: Json, _ place: String) throws -> String? {
        let found = value.asObject.map { $0["content"] ?? .null } ?? value
        if found == .null || found == .text("") { return nil }
        return try checkedTokenName(found.asText, where: place)
    }

    private static func names(_ keys: JsonFields, _ key: String) throws -> [String] {
        if !keys.contains(key) { return [] }
        let values = try keys.json[key]?.asObject?.entries.map(\.value) ?? keys.list(key)
        return try values.compactMap { try name($0, keys.at(key)) }
    }

    private static func added(_ value: Json, _ place: String) throws -> AddedToken {
        let token = JsonFields(value.asObject ?? ["content": value], where: place)
        func flag(_ key: String) throws -> Bool { try token.contains(key) && token.bool(key) }
        return AddedToken(
            name: try checkedTokenName(token.json["content"]?.asText, where: place),
            singleWord: try flag("single_word"),
            takesBlanksBefore: try flag("lstrip"),
            takesBlanksAfter: try flag("rstrip"),
            normalized: try flag("normalized"),
            isSpecial: try flag("special"))
    }
}

private let mostNameCharacters = 256
private let mostAdded = 1 << 15

/// Return the name of an added token.
///
/// - Throws: ``BundleError`` if it can be none
func checkedTokenName(_ name: String?, where place: String) throws -> String {
    if let name, (1...mostNameCharacters).contains(name.unicodeScalars.count) { return name }
    let found = name.map(shown) ?? "none"
    throw BundleError(
        "\(place): expected a token's name of 1 to \(mostNameCharacters) characters, found \(found)",
        hint: getAnotherTokenizer)
}

/// Refuse more added tokens than any model has.
func requireCount(_ added: Int, where place: String) throws {
    if added <= mostAdded { return }
    throw BundleError(
        "\(place): it has \(added) added tokens, expected at most \(mostAdded)", hint: getAnotherTokenizer)
}
