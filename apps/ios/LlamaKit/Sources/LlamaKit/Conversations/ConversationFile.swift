private let version = 1
private let shownCharacters = 40
private let mostTurns = 100_000

extension Conversation {
    /// Return it as the bytes of a file, with a checksum in them.
    public func write() -> [UInt8] {
        let content = Json.object(json())
        let top: JsonObject = [
            "format_version": .number(JsonNumber(version)),
            "sha256": .text(Sha256.hex(of: content.writeBytes())),
            "conversation": content,
        ]
        return Json.object(top).writeBytes()
    }

    /// Read the bytes of a file.
    ///
    /// - Parameters:
    ///   - content: bytes that ``write()`` made
    ///   - place: name of the file, for messages
    /// - Throws: ``BadInput`` if it is damaged at any byte, or of a newer version of the app
    public static func parse(_ content: [UInt8], where place: String) throws -> Conversation {
        let top = try parseJson(content, where: place).fields(where: place)
        let found = try top.int("format_version")
        if found != version {
            throw BadInput(
                "\(place) has format_version \(found); this app reads \(version)", hint: "Update the app.")
        }
        let fields = try top.fields("conversation")
        let checksum = Sha256.hex(of: Json.object(fields.json).writeBytes())
        if try checksum != top.text("sha256") {
            throw BadInput(
                "\(place) was changed outside of the app, or is damaged", hint: "It is kept as it is.")
        }
        return try Conversation(fields)
    }

    private init(_ fields: JsonFields) throws {
        let turns = try fields.list("turns")
        if turns.count > mostTurns {
            throw BadInput("\(fields.place) has more than \(mostTurns) turns", hint: "")
        }
        self.init(
            id: try fields.text("id"),
            title: try fields.text("title"),
            model: try fields.text("model"),
            changedMs: try fields.long("changed_ms"),
            system: try fields.text("system"),
            sampling: try Sampling(kept: fields.fields("sampling")),
            turns: try turns.enumerated().map { index, turn in
                try SavedTurn(turn.fields(where: "\(fields.place): turn \(index)"))
            },
            draft: try fields.text("draft"))
    }

    private func json() -> JsonObject {
        [
            "id": .text(id),
            "title": .text(title),
            "model": .text(model),
            "changed_ms": .number(JsonNumber(changedMs)),
            "system": .text(system),
            "sampling": .object(sampling.json()),
            "turns": .array(turns.map { .object($0.json()) }),
            "draft": .text(draft),
        ]
    }
}

extension Sampling {
    fileprivate init(kept fields: JsonFields) throws {
        try self.init(
            temperature: fields.double("temperature"),
            topP: fields.double("top_p"),
            topK: fields.int("top_k"),
            seed: fields.contains("seed") ? fields.long("seed") : nil,
            minP: fields.double("min_p"),
            repetitionPenalty: fields.double("repetition_penalty"))
    }

    fileprivate func json() -> JsonObject {
        [
            "temperature": number(temperature),
            "top_p": number(topP),
            "top_k": .number(JsonNumber(topK)),
            "seed": orNull(seed),
            "min_p": number(minP),
            "repetition_penalty": number(repetitionPenalty),
        ]
    }
}

extension SavedTurn {
    fileprivate init(_ fields: JsonFields) throws {
        let key = try fields.text("role")
        guard let role = Role.allCases.first(where: { sameBytes($0.rawValue, key) }) else {
            let shown = key.prefix(shownCharacters)
            throw BadInput("\(fields.at("role")): expected a role, found \(shown)", hint: "")
        }
        self.init(
            Message(role, try fields.text("text")),
            isWhole: try fields.bool("is_whole"),
            figures: fields.contains("figures") ? try AnswerFigures(fields.fields("figures")) : nil)
    }

    fileprivate func json() -> JsonObject {
        [
            "role": .text(message.role.rawValue),
            "text": .text(message.text),
            "is_whole": .bool(isWhole),
            "figures": figures.map { .object($0.json()) } ?? .null,
        ]
    }
}

extension AnswerFigures {
    fileprivate init(_ fields: JsonFields) throws {
        self.init(
            newTokens: try fields.int("new_tokens"),
            tokensPerS: try fields.double("tokens_per_s"),
            timeToFirstTokenS: try fields.double("time_to_first_token_s"),
            contextTokens: try fields.int("context_tokens"),
            maxContext: fields.contains("max_context") ? try fields.int("max_context") : nil,
            memoryBytes: fields.contains("memory_bytes") ? try fields.long("memory_bytes") : nil,
            thermal: fields.contains("thermal") ? try fields.text("thermal") : nil)
    }

    fileprivate func json() -> JsonObject {
        [
            "new_tokens": .number(JsonNumber(newTokens)),
            "tokens_per_s": number(tokensPerS),
            "time_to_first_token_s": number(timeToFirstTokenS),
            "context_tokens": .number(JsonNumber(contextTokens)),
            "max_context": orNull(maxContext),
            "memory_bytes": orNull(memoryBytes),
            "thermal": thermal.map { .text($0) } ?? .null,
        ]
    }
}

/// Return a number; what was divided by no time at all is 0, for a figure must not lose a conversation.
private func number(_ value: Double) -> Json { .number(JsonNumber(value) ?? JsonNumber(0)) }

private func orNull(_ value: (some FixedWidthInteger)?) -> Json {
    value.map { .number(JsonNumber($0)) } ?? .null
}
