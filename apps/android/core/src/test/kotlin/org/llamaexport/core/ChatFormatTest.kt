package org.llamaexport.core

import java.time.LocalDateTime
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull

class ChatFormatTest {
    private val vectors = Vectors("turns.json")
    private val forms = HashMap<String, ChatFormat>().also { found ->
        vectors.each("forms") { found[it.text("name")] = ChatFormat.of(it.fields("chat"), DEMO_VOCABULARY) }
    }

    private fun plain(piece: Piece): Json = when (piece) {
        is TokenPiece -> JsonNumber(piece.id)
        is TextPiece -> JsonText(piece.text)
        is DatePiece -> error("a date that was not written")
    }

    @Test
    fun `every dialog is written as the template writes it`() {
        val tokenizer = demoTokenizer()
        vectors.each("dialogs") {
            val now = LocalDateTime.parse(it.text("time"))
            val form = forms.getValue(it.text("form"))
            assertEquals(it.list("parts"), form.write(messagesOf(it), true, now).map(::plain))
            assertContentEquals(it.ints("ids"), form.encode(messagesOf(it), tokenizer, now = now))
        }
    }

    @Test
    fun `texts are encoded joined, and tokens stay`() {
        val tokenizer = LetterTokenizer()
        val form = forms.getValue("words")
        val ids = form.encode(listOf(Message(Role.USER, "hi")), tokenizer, now = LocalDateTime.MIN)
        assertEquals(1, tokenizer.encoded.size)
        assertContentEquals(tokenizer.encode(tokenizer.encoded.single()), ids)
        val asked = listOf(Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"))
        val open = form.encode(asked, tokenizer, asks = false)
        assertEquals(END_OF_TEXT, open.last())
        assertContentEquals(open.dropLast(1).toIntArray(), tokenizer.encode(tokenizer.encoded.last()))
    }

    @Test
    fun `every time is written as Python writes it`() = vectors.each("times") {
        assertEquals(it.text("text"), formatTime(it.text("format"), LocalDateTime.parse(it.text("time"))))
    }

    @Test
    fun `a word of another platform is no time`() {
        for (format in listOf("%", "%Z", "%-d", "%d %", "%e", "%c")) assertFalse(isTimeFormat(format), format)
        val error = assertFailsWith<BadInput> { formatTime("%d %q", LocalDateTime.MIN) }
        assertContains(error.message.orEmpty(), "%d %q")
    }

    @Test
    fun `what is stripped is what Python strips`() {
        val blanks = vectors.ints("blanks").toSet()
        for (code in 0..0xFFFF) {
            val char = code.toChar().toString()
            assertEquals(if (code in blanks) "" else char, stripped(char), "U+${code.toString(16)}")
            assertEquals(code in blanks, isBlank(char))
        }
        assertEquals(true, blanks.all { it <= 0xFFFF })
        assertEquals("a b", stripped(" \n a b\t\u3000"))
    }

    @Test
    fun `a model without turns says why`() {
        val none = parseJson("""{"turns": null, "reason": "it goes on with a text"}""", "m").fields("m")
        val form = ChatFormat.of(none, 8)
        assertNull(form.turns)
        for (each in listOf(form to "it goes on with a text", ChatFormat.UNKNOWN to "older than")) {
            val error = assertFailsWith<PromptError> {
                each.first.encode(listOf(Message(Role.USER, "a")), LetterTokenizer())
            }
            assertContains(error.message.orEmpty(), each.second)
        }
        val silent = parseJson("""{"turns": null, "reason": null}""", "m").fields("m")
        assertFailsWith<BadInput> { ChatFormat.of(silent, 8) }
    }

    @Test
    fun `messages in another order are refused`() {
        val form = forms.getValue("headers")
        fun refused(vararg roles: Role, asks: Boolean = true): String = assertFailsWith<PromptError> {
            form.encode(roles.map { Message(it, "a") }, LetterTokenizer(), asks)
        }.message.orEmpty()
        assertContains(refused(), "no message")
        assertContains(refused(Role.SYSTEM), "found system")
        assertContains(refused(Role.ASSISTANT), "found assistant")
        assertContains(refused(Role.USER, Role.USER), "found user, user")
        assertContains(refused(Role.USER, Role.SYSTEM, Role.USER), "found user, system")
        assertContains(refused(Role.USER, Role.ASSISTANT), "the user last")
        assertContains(refused(Role.USER, Role.USER, asks = false), "the user first")
    }

    @Test
    fun `turns of another form are refused with their place`() {
        fun refused(key: String, value: String): String {
            val keys = linkedMapOf(
                "begin" to "[1]", "no_system" to "[]", "answer" to "[]", "trim" to "true",
                "system" to AROUND, "user" to AROUND, "assistant" to AROUND,
            )
            keys[key] = value
            val turns = keys.entries.joinToString(",", "{", "}") { (name, given) -> "\"$name\": $given" }
            val chat = parseJson("""{"turns": $turns, "reason": null}""", "chat").fields("chat")
            return assertFailsWith<BadInput>("$key $value") { ChatFormat.of(chat, 8) }.message.orEmpty()
        }
        for (bad in listOf("[8]", "[-1]", "[1.0]", "[4294967297]")) {
            assertContains(refused("begin", bad), "chat: turns: begin: expected a token of the vocabulary")
        }
        val two = """{"a": 1, "strftime": "%d"}"""
        val half = """{"strftime": "%d \ud83d"}"""
        val times = listOf("""{"strftime": "%q"}""", """{"strftime": 1}""", half, two, "{}")
        for (bad in times) {
            assertContains(refused("answer", "[$bad]"), "answer: expected a time")
        }
        for (bad in listOf("\"\"", "\"\\ud800\"", "\"a\\udc00\\ud800\"")) {
            assertContains(refused("answer", "[$bad]"), "answer: expected texts that can be encoded")
        }
        assertContains(refused("no_system", "[null]"), "no_system: expected token ids, texts and times")
        assertContains(refused("no_system", "\"x\""), "expected a list")
        assertContains(refused("trim", "1"), "trim: expected true or false")
        assertContains(refused("user", """{"prefix": []}"""), "the key suffix is missing")
        assertContains(refused("begin", List(257) { 1 }.toString()), "at most 256 pieces, found 257")
    }

    private companion object {
        const val DEMO_VOCABULARY = 4096
        const val END_OF_TEXT = 3841
        const val AROUND = """{"prefix": [1], "suffix": ["x", {"strftime": "%d"}]}"""
    }
}
