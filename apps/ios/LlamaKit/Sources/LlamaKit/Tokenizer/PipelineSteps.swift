/// The steps of a `tokenizer.json` around its model: each is done exactly, or refused by name.
struct PipelineSteps {
    /// Name of the file, for messages.
    let place: String

    private static let prependSchemes = ["always", "first", "never"]
    private static let blank = [UInt8(ascii: " ")]
    private static let anyBeginning = Json.text("\\A(?=[\\s\\S])")
    private static let pieceDecoders: [JsonObject] = [
        [
            "type": .text("Replace"), "pattern": .object(["String": .text("\u{2581}")]),
            "content": .text(" "),
        ],
        ["type": .text("ByteFallback")],
        ["type": .text("Fuse")],
    ]

    /// Return what is done to a section of text before it is split.
    ///
    /// - Parameter isLegacy: whether a blank is put before every section, and not the first one alone
    func normalizer(_ step: Json?, isLegacy: Bool) throws -> [BpeTokenizer.Change] {
        try flattened(step, "normalizers", "normalizer").map { step in
            let change = try change(step)
            let isPrefix =
                try sameBytes(step.text("type"), "Prepend")
                || step.json["pattern"]?.asObject?["Regex"] == Self.anyBeginning
            return { text, isFirst in isPrefix && !isFirst && !isLegacy ? text : change(text) }
        }
    }

    private func change(_ step: JsonFields) throws -> @Sendable ([UInt8]) -> [UInt8] {
        let type = try step.text("type")
        if sameBytes(type, "Prepend") { return Self.prepending(Array(try step.text("prepend").utf8)) }
        if !sameBytes(type, "Replace") { throw refusal("normalizer", type, "Prepend or Replace") }
        let content = try step.text("content")
        let pattern = try step.fields("pattern").json
        if let literal = pattern["String"]?.asText, !literal.isEmpty {
            let (old, new) = (Array(literal.utf8), Array(content.utf8))
            return { replacing(old, by: new, in: $0[...]) }
        }
        let regex = pattern["Regex"]
        if regex == .text("\\A +|[ \u{2581}]+\\z") && content.isEmpty { return Self.withoutOuterBlanks }
        if regex == .text(" {2,}") && sameBytes(content, " ") { return Self.singleBlanks }
        if regex == Self.anyBeginning && sameBytes(content, "\u{2581}") {
            return Self.prepending(blankLetter)
        }
        let found = "Replace of \(shown(Json.object(pattern).write()))"
        throw refusal("normalizer", found, "one that an export writes")
    }

    private static func prepending(_ prefix: [UInt8]) -> @Sendable ([UInt8]) -> [UInt8] {
        { $0.isEmpty ? $0 : prefix + $0 }
    }

    @Sendable private static func withoutOuterBlanks(_ text: [UInt8]) -> [UInt8] {
        var rest = text.drop { $0 == blank[0] }
        while true {
            if rest.last == blank[0] {
                rest.removeLast()
            } else if rest.suffix(blankLetter.count).elementsEqual(blankLetter) {
                rest.removeLast(blankLetter.count)
            } else {
                return Array(rest)
            }
        }
    }

    @Sendable private static func singleBlanks(_ text: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        for byte in text where byte != blank[0] || out.last != blank[0] { out.append(byte) }
        return out
    }

    /// Return what splits text of a byte-level model, or nil where the model merges characters.
    func splitters(_ step: Json?) throws -> [any Splitter]? {
        let steps = try flattened(step, "pretokenizers", "pre_tokenizer")
        guard let last = steps.last else { return nil }
        let type = try last.text("type")
        if steps.count == 1 && sameBytes(type, "Metaspace") { return nil }
        if !sameBytes(type, "ByteLevel") {
            throw refusal("pre_tokenizer", type, "ByteLevel as the last step")
        }
        if try last.bool("add_prefix_space") {
            throw refusal("pre_tokenizer", "add_prefix_space", "ByteLevel without it")
        }
        var splitters = try steps.dropLast().map(splitter)
        if try !last.contains("use_regex") || last.bool("use_regex") {
            splitters.append(Gpt2Splitter(classes: CharacterClasses.shared))
        }
        return splitters
    }

    private func splitter(_ step: JsonFields) throws -> any Splitter {
        let type = try step.text("type")
        if sameBytes(type, "Digits") {
            return DigitSplitter(classes: CharacterClasses.shared, alone: try step.bool("individual_digits"))
        }
        if !sameBytes(type, "Split") {
            throw refusal("pre_tokenizer", type, "Split, Digits or ByteLevel")
        }
        let pattern = try step.fields("pattern").json
        let isKnown =
            try pattern == ["Regex": .text(Llama3Splitter.pattern)]
            && sameBytes(step.text("behavior"), "Isolated") && !step.bool("invert")
        if !isKnown {
            let found = "Split by \(shown(Json.object(pattern).write()))"
            throw refusal("pre_tokenizer", found, "Llama 3's pattern, isolated")
        }
        return Llama3Splitter(classes: CharacterClasses.shared)
    }

    /// Return what the step `Metaspace` does to a section: blanks become letters, one comes before.
    func metaspace(_ step: Json?) throws -> @Sendable (_ text: Utf8Text, _ isFirst: Bool) -> [UInt8] {
        guard let found = try flattened(step, "pretokenizers", "pre_tokenizer").first else {
            return { text, _ in Array(text) }
        }
        let isKnown =
            try sameBytes(found.text("replacement"), "\u{2581}") && found.json["split"] == .bool(false)
        if !isKnown {
            throw refusal("pre_tokenizer", "Metaspace that splits", "Metaspace with \"split\": false")
        }
        let scheme = try found.text("prepend_scheme")
        guard let known = Self.prependSchemes.first(where: { sameBytes($0, scheme) }) else {
            throw refusal("pre_tokenizer", "Metaspace \(shown(scheme))", "first")
        }
        return { text, isFirst in
            let lettered = replacing(Self.blank, by: blankLetter, in: Array(text)[...])
            let prepends = known == "always" || (known == "first" && isFirst)
            return prepends && !lettered.starts(with: blankLetter) ? blankLetter + lettered : lettered
        }
    }

    /// Return how many blanks fall away before a text of pieces, or nil where ids stand for bytes.
    func decoder(_ step: Json?) throws -> Int? {
        let steps = try flattened(step, "decoders", "decoder").map(\.json)
        if steps.count == 1 && steps[0]["type"] == .text("ByteLevel") { return nil }
        let strip: JsonObject = [
            "type": .text("Strip"), "content": .text(" "), "start": .number(JsonNumber(1)),
            "stop": .number(JsonNumber(0)),
        ]
        if steps == Self.pieceDecoders { return 0 }
        if steps == Self.pieceDecoders + [strip] { return 1 }
        let types = steps.map { $0["type"]?.asText ?? "unknown" }.joined(separator: ", ")
        let expected = "ByteLevel, or Replace, ByteFallback and Fuse"
        throw refusal("decoder", types.isEmpty ? "none" : types, expected)
    }

    /// Return the ids that the post-processor puts before a text.
    func prefixIds(_ step: Json?) throws -> [Int32] {
        let found = try flattened(step, "processors", "post_processor").map { each -> [Int32] in
            let type = try each.text("type")
            if sameBytes(type, "ByteLevel") { return [] }
            if sameBytes(type, "TemplateProcessing") { return try templateIds(each) }
            throw refusal("post_processor", type, "TemplateProcessing or ByteLevel")
        }
        // A later step puts its tokens before those of an earlier one.
        return found.reversed().flatMap { $0 }
    }

    private func templateIds(_ step: JsonFields) throws -> [Int32] {
        let tokens = try step.fields("special_tokens")
        var ids: [Int32] = []
        for each in try step.list("single") {
            let part = try each.fields(where: step.at("single"))
            if !part.contains("SpecialToken") { break }
            let name = try part.fields("SpecialToken").text("id")
            ids += try tokens.fields(name).list("ids").map(id)
        }
        return ids
    }

    private func id(_ value: Json) throws -> Int32 {
        guard let id = value.asNumber.flatMap({ Int32($0.text) }), id >= 0 else {
            let message = "\(place): post_processor: expected ids, found \(shown(value.write()))"
            throw BundleError(message, hint: getAnotherTokenizer)
        }
        return id
    }

    /// Return the steps of a place, of which there may be none, one, or a sequence.
    private func flattened(_ step: Json?, _ key: String, _ part: String) throws -> [JsonFields] {
        guard let step, step != .null else { return [] }
        let fields = try step.fields(where: "\(place): \(part)")
        if try !sameBytes(fields.text("type"), "Sequence") { return [fields] }
        return try fields.list(key).flatMap { try flattened($0, key, part) }
    }

    /// Return the error that refuses a step that is not done here.
    func refusal(_ part: String, _ found: String, _ expected: String) -> BundleError {
        BundleError(
            "\(place): the \(part) has \(found), which this app does not do: expected \(expected)",
            hint:
                "Run this model with llama-export on a computer, or take a model with a tokenizer of Llama's "
                + "kinds.")
    }
}
