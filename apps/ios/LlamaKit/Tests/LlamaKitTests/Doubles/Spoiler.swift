@testable import LlamaKit

/// Spoils documents and bytes, always in the same ways, as nobody who means well would write them.
struct Spoiler {
    private var random: TestRandom

    init(_ seed: UInt64) { random = TestRandom(seed) }

    private static let values: [Json] =
        [
            "-1", "0", "1", "2147483647", "2147483648", "-2147483648", "9223372036854775807",
            "-9223372036854775808", "1000000000000000000000000000000", "-0", "1e308", "-1e308", "1e-320",
            "0.5",
        ].compactMap { JsonNumber($0).map { .number($0) } }
        + [
            "", " ", "\0", "a/../b", "e\u{301}", "\u{301}", "\u{2581}", "-1",
            String(repeating: "é", count: 5000),
        ]
        .map { .text($0) }
        + [
            .null, .bool(true), .bool(false), .array([]), .array([.array([])]), .object([:]),
            .object(["": .null]),
        ]

    mutating func below(_ limit: Int) -> Int { random.below(limit) }

    /// Return a document with one or two values that it should not have.
    mutating func spoilt(_ json: Json) -> Json {
        let once = spoiltOnce(json)
        return below(3) == 0 ? spoiltOnce(once) : once
    }

    private mutating func spoiltOnce(_ json: Json) -> Json {
        switch json {
        case .object(var object) where !object.entries.isEmpty && below(8) != 0:
            let (key, value) = object.entries[below(object.entries.count)]
            object[key] = below(12) == 0 ? nil : spoiltOnce(value)
            return .object(object)
        case .array(var items) where !items.isEmpty && below(8) != 0:
            let place = below(items.count)
            switch below(10) {
            case 0: items.remove(at: place)
            case 1: items.append(items[place])
            default: items[place] = spoiltOnce(items[place])
            }
            return .array(items)
        default: return Self.values[below(Self.values.count)]
        }
    }

    /// Return bytes of which some are others, missing, or there twice.
    mutating func spoilt(_ bytes: [UInt8]) -> [UInt8] {
        var spoilt = bytes
        for _ in 0...below(3) where !spoilt.isEmpty {
            let place = below(spoilt.count)
            switch below(5) {
            case 0: spoilt.removeSubrange(place...)
            case 1: spoilt.remove(at: place)
            case 2: spoilt.insert(contentsOf: spoilt[place...].prefix(40), at: place)
            case 3: spoilt[place] = [0, 0x7F, 0x80, 0xFF][below(4)]
            default: spoilt[place] ^= 1 << UInt8(below(8))
            }
        }
        return spoilt
    }
}
