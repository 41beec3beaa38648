package org.llamaexport.core

import java.io.File
import java.time.LocalDateTime
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotEquals
import kotlin.test.assertNull

class ChatFormatTest {
    private val vectors = Vectors("chat.json", format = 2)
    private val tokenizers = HashMap<String, Tokenizer>()
    private val forms = HashMap<String, ChatFormat>().also { found ->
        vectors.each("forms") {
            val tokenizer = tokenizerOf(it.text("tokenizer"))
            tokenizers[it.text("name")] = tokenizer
            found[it.text("name")] = ChatFormat.of(it.fields("chat"), tokenizer.vocabSize)
        }
    }

    private fun tokenizerOf(name: String): Tokenizer =
        if (name == "demo") demoTokenizer() else loadTokenizer(File(VECTORS, "tokenizers/$name"))

    private fun plain(piece: Piece): Json = when (piece) {
        is TokenPiece -> JsonNumber(piece.id)
        is TextPiece -> JsonText(piece.text)
        is DatePiece -> error("a date that was not written")
    }

    @Test
    fun `every dialog is written as the template writes it`() {
        vectors.each("dialogs") {
            val now = LocalDateTime.parse(it.text("time"))
            val form = forms.getValue(it.text("form"))
            val tokenizer = tokenizers.getValue(it.text("form"))
            assertEquals(it.list("parts"), form.write(messagesOf(it), true, now).map(::plain))
            assertContentEquals(it.ints("ids"), form.encode(messagesOf(it), tokenizer, now = now))
        }
    }

    @Test
    fun `a form has turns, or a reason why not`() {
        for ((name, form) in forms) assertNotEquals(form.turns == null, form.reason == null, name)
        assertEquals(setOf("a base model", "answers changed"), forms.filterValues { it.turns == null }.keys)
    }

    @Test
    fun `a system message is refused where there can be none`() {
        val without = forms.filterValues { !it.takesSystem && it.turns != null }
        assertEquals(setOf("llama guard"), without.keys)
        val dialog = listOf(Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Hi"))
        val error = assertFailsWith<PromptError> {
            without.getValue("llama guard").encode(dialog, LetterTokenizer())
        }
        assertEquals("this model's dialogs have no system message", error.message)
        assertEquals("Say it in your first message instead.", error.hint)
    }

    @Test
    fun `a system message inside the last message stands there while the answer is written`() {
        val form = forms.getValue("mistral")
        val asked = listOf(Message(Role.SYSTEM, "s"), Message(Role.USER, "a"), Message(Role.ASSISTANT, " b "))
        fun texts(messages: List<Message>, asks: Boolean) =
            form.write(messages, asks, LocalDateTime.MIN).filterIsInstance<TextPiece>().map { it.text }
        assertEquals(listOf("[INST] s\n\na[/INST] b"), texts(asked, asks = false))
        val again = asked + Message(Role.USER, "c")
        assertEquals(listOf("[INST] a[/INST] b", "[INST] s\n\nc[/INST]"), texts(again, asks = true))
    }

    @Test
    fun `a text behind a token continues, and one at the beginning does not`() {
        val tokenizer = LetterTokenizer()
        val asked = listOf(Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"), Message(Role.USER, "c"))
        forms.getValue("vicuna").encode(asked, tokenizer)
        assertEquals(listOf(false, true), tokenizer.wereContinuing)
        tokenizer.wereContinuing.clear()
        forms.getValue("llama 3").encode(asked, tokenizer)
        assertEquals(setOf(true), tokenizer.wereContinuing.toSet())
    }

    @Test
    fun `texts are encoded joined, and tokens stay`() {
        val tokenizer = LetterTokenizer()
        val form = forms.getValue("vicuna")
        val ids = form.encode(listOf(Message(Role.USER, "hi")), tokenizer, now = LocalDateTime.MIN)
        assertEquals(1, tokenizer.encoded.size)
        assertContentEquals(tokenizer.encode(tokenizer.encoded.single()), ids)
        val asked = listOf(Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"))
        val open = form.encode(asked, tokenizer, asks = false)
        assertEquals(END_OF_TURN, open.last())
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
        val form = forms.getValue("llama 3")
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
                "begin" to "[1]", "no_system" to "[]", "answer" to "[]", "trim" to "[]",
                "system" to AROUND, "user" to AROUND, "assistant" to AROUND, "thoughts_end" to "null",
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
        for (bad in listOf("true", "1")) assertContains(refused("trim", bad), "trim: expected a list")
        assertContains(refused("trim", "[\"tool\"]"), "trim: expected names of roles, found \"tool\"")
        assertContains(refused("thoughts_end", "\"\""), "thoughts_end: expected a text, found none")
        assertContains(refused("thoughts_end", "1"), "thoughts_end: expected a string")
        assertContains(refused("user", "null"), "user: expected an object")
        fun inside(user: String, before: String) = """{"user": $user, "before": $before, "after": ""}"""
        assertContains(refused("system", inside("\"mid\"", "\"\"")), "system: user: expected first or last")
        assertContains(refused("system", inside("\"last\"", "1")), "system: before: expected a string")
        assertContains(refused("system", inside("\"last\"", "\"\\ud800\"")), "a text that can be encoded")
        assertContains(refused("user", """{"prefix": []}"""), "the key suffix is missing")
        assertContains(refused("begin", List(257) { 1 }.toString()), "at most 256 pieces, found 257")
    }

    private companion object {
        const val END_OF_TURN = 3849
        const val AROUND = """{"prefix": [1], "suffix": ["x", {"strftime": "%d"}]}"""
    }
}
