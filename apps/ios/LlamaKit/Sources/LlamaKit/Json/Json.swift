/// A JSON value. ``parseJson(_:where:)-(String,_)`` makes one of text, ``write()`` makes text of one.
public enum Json: Sendable {
    case object(JsonObject)
    case array([Json])
    case text(String)
    case number(JsonNumber)
    case bool(Bool)
    case null

    /// The object, or nil where it is another kind of value.
    public var asObject: JsonObject? {
        if case .object(let object) = self { object } else { nil }
    }

    /// The items of the array, or nil where it is another kind of value.
    public var asArray: [Json]? {
        if case .array(let items) = self { items } else { nil }
    }

    /// The string, or nil where it is another kind of value.
    public var asText: String? {
        if case .text(let text) = self { text } else { nil }
    }

    /// The number, or nil where it is another kind of value.
    public var asNumber: JsonNumber? {
        if case .number(let number) = self { number } else { nil }
    }

    /// Whether it is true, or nil where it is neither true nor false.
    public var asBool: Bool? {
        if case .bool(let bool) = self { bool } else { nil }
    }

    /// What kind of value it is, for a message.
    public var kind: String {
        switch self {
        case .object: "an object"
        case .array: "a list"
        case .text: "a string"
        case .number(let number): number.isWhole ? "a whole number" : "a number"
        case .bool: "true or false"
        case .null: "null"
        }
    }
}

extension Json: Equatable {
    /// Strings and keys are equal if their bytes are, and numbers if their digits are.
    public static func == (left: Json, right: Json) -> Bool {
        switch (left, right) {
        case (.object(let left), .object(let right)): left == right
        case (.array(let left), .array(let right)): left == right
        case (.text(let left), .text(let right)): sameBytes(left, right)
        case (.number(let left), .number(let right)): left == right
        case (.bool(let left), .bool(let right)): left == right
        case (.null, .null): true
        default: false
        }
    }
}

/// An object; its entries keep the order in which they were written. Keys are compared by their bytes.
public struct JsonObject: Sendable {
    /// The keys with their values, each key once.
    public private(set) var entries: [(key: String, value: Json)]

    // Where each key stands; small objects are searched without.
    private var places: [Utf8Key: Int]?

    private static let mostSearched = 8

    /// Make an object of pairs; of a key that is given twice the later value counts.
    public init(_ pairs: [(String, Json)] = []) {
        entries = []
        entries.reserveCapacity(pairs.count)
        for (key, value) in pairs { self[key] = value }
    }

    /// The value of a key, or nil where the key is absent. Setting nil removes the key.
    public subscript(key: String) -> Json? {
        get { place(of: key).map { entries[$0].value } }
        set {
            switch (place(of: key), newValue) {
            case (let place?, let value?): entries[place].value = value
            case (nil, let value?): append(key, value)
            case (let place?, nil):
                entries.remove(at: place)
                places = nil
                indexIfLarge()
            case (nil, nil): break
            }
        }
    }

    /// The keys in their order.
    public var keys: [String] { entries.map(\.key) }

    /// Append an entry whose key is not there yet.
    ///
    /// - Returns: false if the key is there, and nothing was done
    mutating func appendNew(_ key: String, _ value: Json) -> Bool {
        if place(of: key) != nil { return false }
        append(key, value)
        return true
    }

    private func place(of key: String) -> Int? {
        if let places { return places[Utf8Key(key)] }
        return entries.firstIndex { sameBytes($0.key, key) }
    }

    private mutating func append(_ key: String, _ value: Json) {
        entries.append((key, value))
        if places != nil {
            places?[Utf8Key(key)] = entries.count - 1
        } else {
            indexIfLarge()
        }
    }

    private mutating func indexIfLarge() {
        guard entries.count > Self.mostSearched else { return }
        var found: [Utf8Key: Int] = [:]
        for (place, entry) in entries.enumerated() { found[Utf8Key(entry.key)] = place }
        places = found
    }
}

extension JsonObject: Equatable, ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral pairs: (String, Json)...) {
        self.init(pairs)
    }

    /// Two objects are equal in whatever order their entries stand.
    public static func == (left: JsonObject, right: JsonObject) -> Bool {
        left.entries.count == right.entries.count
            && left.entries.allSatisfy { entry in right[entry.key].map { $0 == entry.value } ?? false }
    }
}

/// A number, as the digits it was written with; so no reader rounds what another one wants exact.
public struct JsonNumber: Sendable, Hashable {
    /// The digits, as JSON writes them.
    public let text: String

    /// Make a number of digits, or nil where they are no JSON number.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        let end = bytes.withUnsafeBufferPointer { numberEnd($0, from: 0) }
        guard end == bytes.count else { return nil }
        self.text = text
    }

    /// Make a number of digits that were looked at.
    init(digits: String) {
        text = digits
    }

    /// Make a whole number.
    public init(_ value: some FixedWidthInteger) {
        text = String(value)
    }

    /// Make the shortest number that is read as the same float64, or nil of NaN and infinity, for which JSON
    /// has no place.
    public init?(_ value: Double) {
        guard value.isFinite else { return nil }
        text = value.description
    }

    /// Whether it is written without fraction and exponent.
    public var isWhole: Bool {
        text.utf8.allSatisfy { $0 != UInt8(ascii: ".") && $0 | 0x20 != UInt8(ascii: "e") }
    }

    /// Return it as a whole number of 32 bits.
    ///
    /// - Throws: ``BadInput`` if it has a fraction or an exponent, or is too large
    public func int() throws -> Int {
        guard let value = Int32(text) else { throw notWhole(32) }
        return Int(value)
    }

    /// Return it as a whole number of 64 bits.
    ///
    /// - Throws: ``BadInput`` if it has a fraction or an exponent, or is too large
    public func long() throws -> Int64 {
        guard let value = Int64(text) else { throw notWhole(64) }
        return value
    }

    /// Return the nearest finite float64; whoever parsed it has refused what is larger than any.
    public func double() -> Double {
        // Digits that are a JSON number are one of Swift's too.
        Double(text) ?? .nan
    }

    private func notWhole(_ bits: Int) -> BadInput {
        BadInput("expected a whole number of \(bits) bits, found \(text)", hint: "")
    }
}
