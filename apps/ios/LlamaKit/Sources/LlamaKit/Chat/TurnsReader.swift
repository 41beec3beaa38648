extension Turns {
    private static let mostParts = 256
    private static let shownCharacters = 80

    /// Read the key `turns` of a manifest's `chat`.
    ///
    /// - Parameter vocabSize: number of token ids
    /// - Throws: ``BadInput`` if a key is missing or of another form, or a token is outside the vocabulary
    init(_ turns: JsonFields, vocabSize: Int) throws {
        _ = try turns.required("system")
        _ = try turns.required("thoughts_end")
        begin = try Self.parts(turns, "begin", vocabSize)
        noSystem = try Self.parts(turns, "no_system", vocabSize)
        system = turns.contains("system") ? try Self.systemPlace(turns.fields("system"), vocabSize) : nil
        user = try Self.turn(turns.fields("user"), vocabSize)
        assistant = try Self.turn(turns.fields("assistant"), vocabSize)
        answer = try Self.parts(turns, "answer", vocabSize)
        trim = try Self.trimmedRoles(turns)
        thoughtsEnd = turns.contains("thoughts_end") ? try turns.text("thoughts_end") : nil
        if thoughtsEnd == "" { throw Self.wrong(turns, "thoughts_end", "a text", "none") }
    }

    private static func turn(_ owner: JsonFields, _ vocabSize: Int) throws -> Turn {
        Turn(prefix: try parts(owner, "prefix", vocabSize), suffix: try parts(owner, "suffix", vocabSize))
    }

    private static func systemPlace(_ owner: JsonFields, _ vocabSize: Int) throws -> SystemPlace {
        if !owner.contains("user") { return .turn(try turn(owner, vocabSize)) }
        let user = try owner.text("user")
        if user != "first" && user != "last" { throw wrong(owner, "user", "first or last", user) }
        return .insideUser(
            isInLast: user == "last", before: try owner.text("before"), after: try owner.text("after"))
    }

    private static func trimmedRoles(_ turns: JsonFields) throws -> Set<Role> {
        Set(
            try turns.list("trim").map { name in
                guard let role = name.asText.flatMap(Role.init(rawValue:)) else {
                    throw wrong(turns, "trim", "names of roles", name.write())
                }
                return role
            })
    }

    private static func parts(_ owner: JsonFields, _ key: String, _ vocabSize: Int) throws -> [FormPart] {
        let found = try owner.list(key)
        if found.count > mostParts {
            throw wrong(owner, key, "at most \(mostParts) pieces", "\(found.count)")
        }
        return try found.map { try part($0, owner, key, vocabSize) }
    }

    private static func part(
        _ value: Json, _ owner: JsonFields, _ key: String, _ vocabSize: Int
    ) throws -> FormPart {
        switch value {
        case .text(let text):
            if text.isEmpty { throw wrong(owner, key, "texts that can be encoded", value.write()) }
            return .text(text)
        case .number(let number):
            guard let id = Int32(number.text), id >= 0, Int(id) < vocabSize else {
                throw wrong(owner, key, "a token of the vocabulary of \(vocabSize)", number.text)
            }
            return .token(id)
        case .object(let object):
            guard let format = object["strftime"]?.asText, object.entries.count == 1, isTimeFormat(format)
            else {
                throw wrong(owner, key, "a time in words of strftime that this app knows", value.write())
            }
            return .time(format)
        default: throw wrong(owner, key, "token ids, texts and times", value.kind)
        }
    }

    private static func wrong(
        _ owner: JsonFields, _ key: String, _ expected: String, _ found: String
    ) -> BadInput {
        BadInput(
            "\(owner.at(key)): expected \(expected), found \(found.prefix(shownCharacters))",
            hint: "Export the model again, or update the app.")
    }
}
