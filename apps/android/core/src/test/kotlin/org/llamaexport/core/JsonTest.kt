package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class JsonTest {
    private fun parse(text: String): Json = parseJson(text, "file.json")

    private fun refused(text: String): String =
        assertFailsWith<BadInput> { parse(text) }.message.orEmpty()

    @Test
    fun `every kind of value is read`() {
        val expected = JsonObject(
            "text" to JsonText("a\"\\/\b\u000C\n\r\t\u00e9\uD83D\uDE00"),
            "number" to JsonNumber("-0.5e+3"),
            "list" to JsonArray(listOf(JsonBool(true), JsonBool(false), JsonNull)),
            "empty" to JsonObject(emptyMap()),
            "none" to JsonArray(emptyList()),
        )
        val text = """ { "text": "a\"\\\/\b\f\n\r\t\u00e9\ud83d\uDE00" , "number":-0.5e+3,
            "list": [true,false , null], "empty": { }, "none": [ ] } """
        assertEquals(expected, parse(text))
    }

    @Test
    fun `keys keep their order`() {
        val read = parse("""{"b":1,"a":2,"c":3}""") as JsonObject
        assertEquals(listOf("b", "a", "c"), read.entries.keys.toList())
    }

    @Test
    fun `a number keeps its digits`() {
        assertEquals("12345678901234567890", (parse("12345678901234567890") as JsonNumber).text)
        assertEquals(9007199254740993, (parse("9007199254740993") as JsonNumber).long())
        assertEquals(-7, (parse("-7") as JsonNumber).int())
        assertEquals(0.1, (parse("1e-1") as JsonNumber).double())
    }

    @Test
    fun `a number that is not whole, or too large, is no int`() {
        for (text in listOf("1.0", "1e2", "2147483648")) {
            assertFailsWith<BadInput>(text) { (parse(text) as JsonNumber).int() }
        }
        assertFailsWith<BadInput> { (parse("9223372036854775808") as JsonNumber).long() }
    }

    @Test
    fun `a key given twice is refused by name`() {
        assertContains(refused("""{"a":1,"b":{"k":1,"k":2}}"""), "the key \"k\" is given twice")
    }

    @Test
    fun `what is no JSON is refused`() {
        val texts = listOf(
            "", " ", "{", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "'a'", "\"a",
            "\"\\x\"", "\"\\u12g4\"", "\"\\u12\"", "\"\\u+123\"", "\"a\nb\"", "01", "-", "1.", ".5", "+1",
            "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "nul", "True", "1 2", "[1 2]",
            "{\"a\":1 \"b\":2}", "\uFEFF{}", "[1]\u0000", "/* a */ 1", "[\u00a01]", "\u0661",
        )
        for (text in texts) assertContains(refused(text), "file.json is not valid JSON", message = text)
    }

    @Test
    fun `a message says where`() {
        assertContains(refused("{\n \"a\": x}"), "in line 2, character 7, found \"x\"")
        assertContains(refused("x"), "in line 1, character 1, found \"x\"")
        assertContains(refused("[\n1,\n\n]"), "in line 4, character 1, found \"]\"")
        assertContains(refused("[1"), "found the end")
    }

    @Test
    fun `numbers that no field has are refused`() {
        assertContains(refused("1e999"), "too large")
        assertContains(refused("1".repeat(41)), "41 digits")
        assertEquals("1".repeat(40), (parse("1".repeat(40)) as JsonNumber).text)
    }

    @Test
    fun `nesting is bounded, siblings are not`() {
        fun nested(levels: Int) = "[".repeat(levels) + "]".repeat(levels)
        parse(nested(MOST_JSON_LEVELS))
        assertContains(refused(nested(MOST_JSON_LEVELS + 1)), "deeper than $MOST_JSON_LEVELS levels")
        assertContains(refused("[".repeat(1_000_000)), "deeper")
        assertEquals(10_001, (parse("[" + "[],".repeat(10_000) + "{}]") as JsonArray).items.size)
    }

    @Test
    fun `what is written is read back as it was`() {
        val odd = "\u0000\u001f\"\\/\u007f\u2028\uD83D\uDE00 \uD83D alone \uDE00"
        val value = JsonObject(
            odd to JsonText(odd),
            "list" to JsonArray(listOf(JsonNumber(1), JsonNumber(Long.MIN_VALUE), JsonNumber(1e-10))),
            "bool" to JsonBool(false),
        )
        assertEquals(value, parse(value.write()))
        val bytes = value.write().toByteArray(Charsets.UTF_8)
        assertEquals(value, parse(String(bytes, Charsets.UTF_8)))
        assertEquals("""{"a":[1,null],"b":"c"}""", parse(""" {"a" : [ 1 , null ], "b":"c" }""").write())
    }

    @Test
    fun `a number that JSON cannot hold is not made`() {
        for (value in listOf(Double.NaN, Double.POSITIVE_INFINITY)) {
            assertFailsWith<IllegalArgumentException> { JsonNumber(value) }
        }
        assertFailsWith<IllegalArgumentException> { JsonNumber("1 ") }
    }

    @Test
    fun `fields name what is wrong with its place`() {
        val text = """{"model":{"layers":"six","size":1.5,"name":null,"on":1}}"""
        val fields = parse(text).fields("m").fields("model")
        fun assertRefused(message: String, read: () -> Any) =
            assertEquals("m: model: $message", assertFailsWith<BadInput> { read() }.message)
        assertRefused("layers: expected a whole number, found a string") { fields.int("layers") }
        assertRefused("size: expected a whole number, found 1.5") { fields.long("size") }
        assertRefused("name: expected a string, found null") { fields.text("name") }
        assertRefused("on: expected true or false, found 1") { fields.bool("on") }
        assertRefused("the key gone is missing") { fields.list("gone") }
        assertEquals(1.5, fields.double("size"))
        assertEquals(false, "name" in fields)
        assertEquals(true, "size" in fields)
        assertFailsWith<BadInput> { parse("[]").fields("m.json") }
    }
}
