/// A JSON object with the place where it stands, so that what is wrong in it is named whole.
public struct JsonFields: Sendable {
    /// The object.
    public let json: JsonObject

    /// A file's name and the keys on the way, such as `manifest.json: model`.
    public let place: String

    private static let hint = "Get the file again, or a version of this app that knows it."
    private static let shownCharacters = 40

    /// Name an object by its place.
    public init(_ json: JsonObject, where place: String) {
        self.json = json
        self.place = place
    }

    /// Return the text of a key.
    ///
    /// - Throws: ``BadInput`` if it is absent or no string
    public func text(_ key: String) throws -> String {
        let found = try required(key)
        guard let text = found.asText else { throw wrong(key, "a string", found) }
        return text
    }

    /// Return the whole number of a key, of 32 bits.
    ///
    /// - Throws: ``BadInput`` if it is absent or none
    public func int(_ key: String) throws -> Int {
        let found = try required(key)
        guard let value = found.asNumber.flatMap({ Int32($0.text) }) else {
            throw wrong(key, "a whole number", found)
        }
        return Int(value)
    }

    /// Return the whole number of a key, of 64 bits.
    ///
    /// - Throws: ``BadInput`` if it is absent or none
    public func long(_ key: String) throws -> Int64 {
        let found = try required(key)
        guard let value = found.asNumber.flatMap({ Int64($0.text) }) else {
            throw wrong(key, "a whole number", found)
        }
        return value
    }

    /// Return the number of a key.
    ///
    /// - Throws: ``BadInput`` if it is absent or none
    public func double(_ key: String) throws -> Double {
        let found = try required(key)
        guard let number = found.asNumber else { throw wrong(key, "a number", found) }
        return number.double()
    }

    /// Return whether a key is true.
    ///
    /// - Throws: ``BadInput`` if it is absent, or neither true nor false
    public func bool(_ key: String) throws -> Bool {
        let found = try required(key)
        guard let bool = found.asBool else { throw wrong(key, "true or false", found) }
        return bool
    }

    /// Return the list of a key.
    ///
    /// - Throws: ``BadInput`` if it is absent or none
    public func list(_ key: String) throws -> [Json] {
        let found = try required(key)
        guard let items = found.asArray else { throw wrong(key, "a list", found) }
        return items
    }

    /// Return the object of a key.
    ///
    /// - Throws: ``BadInput`` if it is absent or none
    public func fields(_ key: String) throws -> JsonFields {
        let found = try required(key)
        guard let object = found.asObject else { throw wrong(key, "an object", found) }
        return JsonFields(object, where: at(key))
    }

    /// Return whether a key is there with another value than null.
    public func contains(_ key: String) -> Bool {
        switch json[key] {
        case nil, .null: false
        default: true
        }
    }

    /// Return a value of a key, whatever it is.
    ///
    /// - Throws: ``BadInput`` if it is absent
    public func required(_ key: String) throws -> Json {
        guard let found = json[key] else {
            throw BadInput("\(place): the key \(key) is missing", hint: Self.hint)
        }
        return found
    }

    /// Return the place of a key, for a message.
    public func at(_ key: String) -> String { "\(place): \(key)" }

    private func wrong(_ key: String, _ expected: String, _ found: Json) -> BadInput {
        let shown = found.asNumber.map { String($0.text.prefix(Self.shownCharacters)) } ?? found.kind
        return BadInput("\(at(key)): expected \(expected), found \(shown)", hint: Self.hint)
    }
}

extension Json {
    /// Return a value as an object with its place.
    ///
    /// - Throws: ``BadInput`` if it is another kind of value
    public func fields(where place: String) throws -> JsonFields {
        guard let object = asObject else {
            throw BadInput("\(place): expected an object, found \(kind)", hint: "")
        }
        return JsonFields(object, where: place)
    }
}
