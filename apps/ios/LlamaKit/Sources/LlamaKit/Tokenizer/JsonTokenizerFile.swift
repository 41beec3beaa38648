/// Makes a tokenizer of a `tokenizer.json`, as far as it is a BPE of the kinds that Llamas have.
///
/// What it does not do exactly as the library `tokenizers` is refused by name.
struct JsonTokenizerFile {
    private let root: JsonFields
    private let model: JsonFields
    private let settings: TokenSettings
    private let place: String
    private let steps: PipelineSteps
    private let vocabulary: Vocabulary
    private let added: AddedTokens

    private static let mostTokens = 1 << 20
    // Tables are as long as the largest id, and gaps are few.
    private static let mostIds = 2 * mostTokens
    private static let mostTokenCharacters = 4096

    /// Make the tokenizer of a file.
    ///
    /// - Parameters:
    ///   - data: bytes of the file
    ///   - settings: what is said of its tokens beside it
    ///   - place: name of the file, for messages
    /// - Throws: ``BundleError`` if it is damaged, or of a kind that is not known here; ``BadInput`` if it is
    ///   no JSON, or a key is missing or of another kind
    static func load(_ data: [UInt8], _ settings: TokenSettings, where place: String) throws -> BpeTokenizer {
        try JsonTokenizerFile(jsonOfTokenizer(data, where: place), settings, place).tokenizer()
    }

    private init(_ root: JsonObject, _ settings: TokenSettings, _ place: String) throws {
        self.root = JsonFields(root, where: place)
        self.settings = settings
        self.place = place
        steps = PipelineSteps(place: place)
        model = try self.root.fields("model")
        try Self.requireBpe(model, steps)
        vocabulary = try Self.vocabulary(model, place)
        added = try Self.added(self.root, settings, vocabulary, place)
        let found = added.tokens.first { [added] in $0.token.singleWord && !added.isSpecial($0.token) }
        if let found {
            let name = shown(found.token.name)
            throw steps.refusal("model", "the added token \(name), found as a single word only", "none")
        }
    }

    private static func requireBpe(_ model: JsonFields, _ steps: PipelineSteps) throws {
        let type = model.json["type"]?.asText
        if model.json["type"] != .text("BPE") {
            throw steps.refusal("model", "a model of type \(type ?? "unknown")", "BPE")
        }
        if model.contains("dropout") { throw steps.refusal("model", "dropout", "none") }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"]
        where model.contains(key) && model.json[key] != .text("") {
            throw steps.refusal("model", "the key \(key)", "none")
        }
    }

    private static func vocabulary(_ model: JsonFields, _ place: String) throws -> Vocabulary {
        let entries = try model.fields("vocab").json.entries
        if entries.count > mostTokens {
            throw failure(place, "it has \(entries.count) tokens, expected at most \(mostTokens)")
        }
        return Vocabulary(
            try entries.map { token, id in
                // Bytes are at least as many as characters, and sooner counted.
                if token.utf8.count > mostTokenCharacters && token.unicodeScalars.count > mostTokenCharacters
                {
                    throw failure(place, "it has a token of \(token.unicodeScalars.count) characters")
                }
                guard let id = id.asNumber.flatMap({ Int32($0.text) }), (0..<Int32(mostIds)).contains(id)
                else {
                    throw failure(place, "the token \(shown(token)) has no id that a token can have")
                }
                return (token, id)
            })
    }

    private static func added(
        _ root: JsonFields, _ settings: TokenSettings, _ vocabulary: Vocabulary, _ place: String
    ) throws -> AddedTokens {
        let listed = try root.contains("added_tokens") ? root.list("added_tokens") : []
        try requireCount(listed.count, where: place)
        let given = try listed.map { each in
            let token = try each.fields(where: "\(place): added_tokens")
            return AddedToken(
                name: try checkedTokenName(token.text("content"), where: "\(place): added_tokens"),
                singleWord: try token.bool("single_word"),
                takesBlanksBefore: try token.bool("lstrip"),
                takesBlanksAfter: try token.bool("rstrip"),
                normalized: try token.bool("normalized"),
                isSpecial: try token.bool("special"))
        }
        var added = AddedTokens(vocabulary)
        added.add(given)
        for token in settings.added { added.add([token]) }
        added.add(settings.controlNames.map { AddedToken(name: $0, isSpecial: true) })
        return added
    }

    private func tokenizer() throws -> BpeTokenizer {
        var names = ByteStrings(count: max(vocabulary.highestId, Int(added.highestId)) + 1)
        if names.count == 0 { throw failure("it has no tokens") }
        for (token, id) in vocabulary.tokens {
            if !names[Int(id)].isEmpty {
                let both = [names[Int(id)], token].map { shown(String(decoding: $0, as: UTF8.self)) }
                throw failure("the tokens \(both[0]) and \(both[1]) have one id")
            }
            names.put(token, at: Int(id))
        }
        for (id, token) in added.tokens { names.put(token.name.utf8, at: Int(id)) }
        return BpeTokenizer(
            vocabSize: names.count,
            prefixIds: try steps.prefixIds(root.json["post_processor"]),
            added: added,
            changes: try steps.normalizer(root.json["normalizer"], isLegacy: settings.isLegacy),
            sections: try sections(),
            decoding: try decoding(names))
    }

    private func decoding(_ names: ByteStrings) throws -> any Decoding {
        if let droppedBlanks = try steps.decoder(root.json["decoder"]) {
            return PieceDecoding(pieces: names, droppedBlanks: droppedBlanks)
        }
        var tokens = ByteStrings(count: names.count)
        for id in 0..<names.count {
            // A name that is not spelt in letters stands for itself.
            tokens.put(names[id].withUnsafeBufferPointer(ByteLetters.bytes) ?? Array(names[id]), at: id)
        }
        return ByteDecoding(tokens: tokens)
    }

    private func sections() throws -> any SectionModel {
        let merges = try merges()
        let takesWords = try flag("ignore_merges")
        var unknownId: Int32?
        if let name = model.json["unk_token"]?.asText {
            unknownId = vocabulary.id(of: name.utf8)
            if unknownId == nil { throw failure("its unk_token \(shown(name)) is no token") }
        }
        let unknown = Unknown(id: unknownId, fuses: try flag("fuse_unk"))
        if let splitters = try steps.splitters(root.json["pre_tokenizer"]) {
            var tokens = ByteStrings(count: vocabulary.highestId + 1)
            for (token, id) in vocabulary.tokens {
                tokens.put(token.withUnsafeBufferPointer(ByteLetters.bytes) ?? [], at: Int(id))
            }
            let table = ByteTable(tokens)
            return ByteLevelModel(
                splitters: splitters,
                byteIds: (UInt8.min...UInt8.max).map { Int32(table.find([$0]) ?? -1) },
                merges: merges,
                words: takesWords ? table : nil,
                unknown: unknown)
        }
        let byteIds = (UInt8.min...UInt8.max).map { vocabulary.id(of: Self.bytePiece($0).utf8) ?? -1 }
        return PieceModel(
            characters: CharacterIds(vocabulary),
            byteIds: try flag("byte_fallback") ? byteIds : nil,
            merges: merges,
            words: takesWords ? vocabulary : nil,
            unknown: unknown,
            prepare: try steps.metaspace(root.json["pre_tokenizer"]))
    }

    private func merges() throws -> MergeTable {
        var names = ByteStrings(count: added.specialNames.count)
        for (number, name) in added.specialNames.enumerated() { names.put(name.text.utf8, at: number) }
        let special = ByteTable(names)
        let given = try model.list("merges")
        var merges: [Merge] = []
        merges.reserveCapacity(given.count)
        var whole: [UInt8] = []
        for (rank, merge) in given.enumerated() {
            let (left, right) = try pair(merge)
            whole.removeAll(keepingCapacity: true)
            whole += left
            whole += right
            // Some converters wrote these; typed text would become the control token by them.
            if special.find(whole) != nil { continue }
            merges.append(
                Merge(left: try id(left), right: try id(right), rank: Int32(rank), result: try id(whole[...]))
            )
        }
        return MergeTable(merges)
    }

    private func pair(_ merge: Json) throws -> (ArraySlice<UInt8>, ArraySlice<UInt8>) {
        var parts: [ArraySlice<UInt8>] = []
        switch merge {
        case .text(let text):
            parts = Array(text.utf8).split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        case .array(let items): parts = items.map { Array(($0.asText ?? "").utf8)[...] }
        default: break
        }
        if parts.count != 2 { throw failure("a merge must be two tokens, found \(parts.count)") }
        return (parts[0], parts[1])
    }

    private func id(_ token: ArraySlice<UInt8>) throws -> Int32 {
        guard let id = vocabulary.id(of: token) else {
            throw failure("a merge has \(shown(String(decoding: token, as: UTF8.self))), which is no token")
        }
        return id
    }

    private func flag(_ key: String) throws -> Bool { try model.contains(key) && model.bool(key) }

    private static func bytePiece(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "<0x\(byte < 0x10 ? "0" : "")\(digits)>"
    }

    private func failure(_ reason: String) -> BundleError { Self.failure(place, reason) }

    private static func failure(_ place: String, _ reason: String) -> BundleError {
        BundleError("\(place): \(reason)", hint: getAnotherTokenizer)
    }
}
