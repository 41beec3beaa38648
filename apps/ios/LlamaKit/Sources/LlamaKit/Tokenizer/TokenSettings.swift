import Foundation

/// What the small files beside a tokenizer say of its tokens.
struct TokenSettings: Sendable {
    /// Names that stand for control tokens, each once.
    let controlNames: [String]

    /// Tokens that were added to the vocabulary, in the order of their ids.
    let added: [AddedToken]

    /// Whether SentencePiece's text behind a token begins like a text of its own.
    let isLegacy: Bool

    private static let configFile = "tokenizer_config.json"
    private static let mapFile = "special_tokens_map.json"
    private static let addedFile = "added_tokens.json"
    private static let addedKey = "added_tokens_decoder"
    private static let named = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]
    private static let listed = ["additional_special_tokens", "extra_special_tokens"]

    /// Read the files of a folder; those of older versions count for what the newest does not say.
    ///
    /// - Throws: ``BundleError`` if a token is spelled in no way that is known; ``BadInput`` if one of the
    ///   files is no JSON
    init(folder: URL) throws {
        var keys = JsonObject()
        let older = try Self.read(folder.appending(path: Self.mapFile))
        for key in Self.named + Self.listed { keys[key] = older[key] }
        let own = try Self.read(folder.appending(path: Self.configFile))
        let added = try Self.read(folder.appending(path: Self.addedFile))
        if !added.entries.isEmpty && own[Self.addedKey] == nil {
            var byId = JsonObject()
            for (name, id) in added.entries {
                byId[id.asNumber?.text ?? name] = .object(["content": .text(name)])
            }
            keys[Self.addedKey] = .object(byId)
        }
        for (key, value) in own.entries { keys[key] = value }
        try self.init(keys, where: Self.configFile)
    }

    private init(_ keys: JsonObject, where place: String) throws {
        var names: [String] = []
        for key in Self.named {
            if let value = keys[key], let name = try Self.name(value, "\(place): \(key)") {
                names.append(name)
            }
        }
        for key in Self.listed { names += try Self.names(keys[key], "\(place): \(key)") }
        var seen: Set<Utf8Key> = []
        controlNames = names.filter { seen.insert(Utf8Key($0)).inserted }
        var given: [(id: Int32, place: Int, token: AddedToken)] = []
        for (id, value) in keys[Self.addedKey]?.asObject?.entries ?? [] {
            let token = try Self.added(value, "\(place): \(Self.addedKey): \(id)")
            given.append((Int32(id) ?? 0, given.count, token))
        }
        isLegacy = keys["legacy"] != .bool(false)
        added = given.sorted { ($0.id, $0.place) < ($1.id, $1.place) }.map(\.token)
    }

    private static func name(_ value: Json, _ place: String) throws -> String? {
        let found = value.asObject.map { $0["content"] ?? .null } ?? value
        if found == .null || found == .text("") { return nil }
        return try checkedTokenName(found.asText, where: place)
    }

    private static func names(_ value: Json?, _ place: String) throws -> [String] {
        let values = value?.asObject?.entries.map(\.value) ?? value?.asArray ?? []
        return try values.compactMap { try name($0, place) }
    }

    private static func added(_ value: Json, _ place: String) throws -> AddedToken {
        let token = value.asObject ?? ["content": value]
        func flag(_ key: String) -> Bool { token[key] == .bool(true) }
        return AddedToken(
            name: try checkedTokenName(token["content"]?.asText, where: place),
            singleWord: flag("single_word"),
            takesBlanksBefore: flag("lstrip"),
            takesBlanksAfter: flag("rstrip"),
            normalized: flag("normalized"),
            isSpecial: flag("special"))
    }

    private static func read(_ file: URL) throws -> JsonObject {
        if !isFile(file) { return [:] }
        return try jsonOfTokenizer(readTokenizerFile(file), where: file.lastPathComponent)
    }
}

private let mostNameCharacters = 256

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
