import Testing

@testable import LlamaKit

private func parse(_ text: String) throws -> Json {
    try parseJson(text, where: "file.json")
}

private func refused(_ text: String) -> String {
    do {
        let read = try parse(text)
        return "read as \(read)"
    } catch {
        return (error as? BadInput)?.message ?? "\(error)"
    }
}

@Suite("JSON of others")
struct JsonTests {
    @Test func everyKindOfValueIsRead() throws {
        let expected: JsonObject = [
            "text": .text("a\"\\/\u{8}\u{C}\n\r\t\u{e9}\u{1F600}"),
            "number": .number(JsonNumber("-0.5e+3")!),
            "list": .array([.bool(true), .bool(false), .null]),
            "empty": .object([:]),
            "none": .array([]),
        ]
        let text = #"""
             { "text": "a\"\\\/\b\f\n\r\t\u00e9\ud83d\uDE00" , "number":-0.5e+3,
            "list": [true,false , null], "empty": { }, "none": [ ] } 
            """#
        #expect(try parse(text) == .object(expected))
    }

    @Test func keysKeepTheirOrder() throws {
        #expect(try parse(#"{"b":1,"a":2,"c":3}"#).asObject?.keys == ["b", "a", "c"])
    }

    @Test func keysAndTextsAreComparedByTheirBytes() throws {
        // U+00E9 and e with U+0301 are equal as Swift strings.
        let read = try #require(parse("{\"\u{e9}\":1,\"e\u{301}\":2}").asObject)
        #expect(read.entries.count == 2)
        #expect(read["\u{e9}"]?.asNumber?.text == "1")
        #expect(read["e\u{301}"]?.asNumber?.text == "2")
        #expect(Json.text("\u{e9}") != Json.text("e\u{301}"))
        #expect(Json.object(["\u{e9}": .null]) != Json.object(["e\u{301}": .null]))
    }

    @Test func keysOfALargeObjectAreFound() throws {
        let pairs = (0..<100).map { ("key \($0)", Json.number(JsonNumber($0))) }
        var object = try #require(parse(Json.object(JsonObject(pairs)).write()).asObject)
        #expect(object.entries.count == 100)
        for (key, value) in pairs { #expect(object[key] == value) }
        object["key 50"] = nil
        object["key 7"] = .null
        #expect(object["key 50"] == nil)
        #expect(object["key 7"] == .null)
        #expect(object["key 99"] == pairs[99].1)
        #expect(object["another"] == nil)
        #expect(object.keys.prefix(3) == ["key 0", "key 1", "key 2"])
    }

    @Test func aNumberKeepsItsDigits() throws {
        #expect(try parse("12345678901234567890").asNumber?.text == "12345678901234567890")
        #expect(try parse("9007199254740993").asNumber?.long() == 9_007_199_254_740_993)
        #expect(try parse("-7").asNumber?.int() == -7)
        #expect(try parse("1e-1").asNumber?.double() == 0.1)
        #expect(try parse("1e-999").asNumber?.double() == 0)
        #expect(try parse("-0.0").asNumber?.double().sign == .minus)
    }

    @Test(arguments: ["1.0", "1e2", "2147483648", "-2147483649"])
    func aNumberThatIsNotWholeOrTooLargeIsNoInt(text: String) throws {
        let number = try #require(parse(text).asNumber)
        #expect(throws: BadInput("expected a whole number of 32 bits, found \(text)", hint: "")) {
            try number.int()
        }
        let large = try #require(parse("9223372036854775808").asNumber)
        #expect(throws: BadInput.self) { try large.long() }
    }

    @Test func aKeyGivenTwiceIsRefusedByName() {
        #expect(refused(#"{"a":1,"b":{"k":1,"k":2}}"#).contains("the key \"k\" is given twice"))
        let many = (0..<20).map { "\"k\($0)\":0" }.joined(separator: ",")
        #expect(refused("{\(many),\"k3\":1}").contains("the key \"k3\" is given twice"))
    }

    @Test(arguments: [
        "", " ", "{", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "'a'", "\"a",
        "\"\\x\"", "\"\\u12g4\"", "\"\\u12\"", "\"\\u+123\"", "\"a\nb\"", "01", "-", "1.", ".5", "+1",
        "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "nul", "True", "1 2", "[1 2]",
        "{\"a\":1 \"b\":2}", "\u{FEFF}{}", "[1]\0", "/* a */ 1", "[\u{a0}1]", "\u{661}", "\"\\", "\"\\u",
        "\"\\u0661\u{661}", "-01", "\"\u{1F}\"",
    ])
    func whatIsNoJsonIsRefused(text: String) {
        #expect(refused(text).hasPrefix("file.json is not valid JSON"))
    }

    @Test func aMessageSaysWhere() {
        #expect(refused("{\n \"a\": x}").contains("in line 2, character 7, found \"x\""))
        #expect(refused("x").contains("in line 1, character 1, found \"x\""))
        #expect(refused("[\n1,\n\n]").contains("in line 4, character 1, found \"]\""))
        #expect(refused("[1").contains("found the end"))
        #expect(refused("[\"\u{e9}\u{1F600}\" \u{1F600}]").contains("character 8, found \"\u{1F600}\""))
    }

    @Test(arguments: ["\\ud83d", "\\ude00", "\\ud83d\\n", "\\ud83d\\u0041", "\\ud83d\\ud83d", "\\ud83dx"])
    func halfOfASurrogatePairIsRefused(half: String) {
        #expect(refused("\"a\(half)b\"").contains("half of a surrogate pair"))
    }

    @Test(
        arguments: [
            [0xFF], [0xC3], [0xC0, 0xAF], [0xED, 0xA0, 0xBD], [0xF4, 0x90, 0x80, 0x80], [0x5C, 0x6E, 0x80],
        ] as [[UInt8]])
    func bytesThatAreNoUtf8AreRefused(bytes: [UInt8]) {
        let quote = [UInt8(ascii: "\"")]
        let expected = "file.json is not valid JSON: expected a string of UTF-8 in line 1, character 2"
        #expect {
            try parseJson(quote + bytes + quote, where: "file.json")
        } throws: { error in
            (error as? BadInput)?.message.hasPrefix(expected) ?? false
        }
    }

    @Test func numbersThatNoFieldHasAreRefused() throws {
        #expect(refused("1e999").contains("too large"))
        #expect(refused(String(repeating: "9", count: 310) + ".5").contains("too large"))
        #expect(refused(String(repeating: "1", count: 41)).contains("41 digits"))
        let most = String(repeating: "1", count: 40)
        #expect(try parse(most).asNumber?.text == most)
    }

    @Test func nestingIsBoundedSiblingsAreNot() throws {
        func nested(_ levels: Int) -> String {
            String(repeating: "[", count: levels) + String(repeating: "]", count: levels)
        }
        _ = try parse(nested(mostJsonLevels))
        #expect(refused(nested(mostJsonLevels + 1)).contains("deeper than \(mostJsonLevels) levels"))
        #expect(refused(String(repeating: "[", count: 1_000_000)).contains("deeper"))
        let siblings = "[" + String(repeating: "[],", count: 10_000) + "{}]"
        #expect(try parse(siblings).asArray?.count == 10_001)
    }

    @Test func whatIsWrittenIsReadBackAsItWas() throws {
        let odd = "\u{0}\u{1f}\"\\/\u{7f}\u{2028}\u{1F600} e\u{301} \r\n"
        let value: JsonObject = [
            odd: .text(odd),
            "list": .array([
                .number(JsonNumber(1)), .number(JsonNumber(Int64.min)), .number(JsonNumber(1e-10)!),
            ]),
            "bool": .bool(false),
        ]
        let written = Json.object(value).write()
        #expect(try parse(written) == .object(value))
        #expect(try parseJson(Array(written.utf8), where: "bytes") == .object(value))
        let text = try parse(#" {"a" : [ 1 , null ], "b":"c" }"#).write()
        #expect(text == #"{"a":[1,null],"b":"c"}"#)
        #expect(Json.text("\u{1}\u{1f}\n").write() == #""\u0001\u001f\n""#)
    }

    @Test func aNumberThatJsonCannotHoldIsNotMade() {
        #expect(JsonNumber(Double.nan) == nil)
        #expect(JsonNumber(Double.infinity) == nil)
        #expect(JsonNumber("1 ") == nil)
        #expect(JsonNumber("") == nil)
        for value in [1e16, Double.leastNonzeroMagnitude, -0.0, 0.1, 1.7976931348623157e308] {
            #expect(JsonNumber(value).flatMap { JsonNumber($0.text)?.double() } == value)
        }
    }

    @Test func fieldsNameWhatIsWrongWithItsPlace() throws {
        let text = #"{"model":{"layers":"six","size":1.5,"name":null,"on":1}}"#
        let fields = try parse(text).fields(where: "m").fields("model")
        func expectRefused(_ message: String, _ read: () throws -> Any) {
            #expect {
                _ = try read()
            } throws: { error in
                (error as? BadInput)?.message == "m: model: \(message)"
            }
        }
        expectRefused("layers: expected a whole number, found a string") { try fields.int("layers") }
        expectRefused("size: expected a whole number, found 1.5") { try fields.long("size") }
        expectRefused("name: expected a string, found null") { try fields.text("name") }
        expectRefused("on: expected true or false, found 1") { try fields.bool("on") }
        expectRefused("layers: expected an object, found a string") { try fields.fields("layers") }
        expectRefused("the key gone is missing") { try fields.list("gone") }
        #expect(try fields.double("size") == 1.5)
        #expect(!fields.contains("name"))
        #expect(fields.contains("size"))
        #expect(throws: BadInput("m.json: expected an object, found a list", hint: "")) {
            try parse("[]").fields(where: "m.json")
        }
    }
}
