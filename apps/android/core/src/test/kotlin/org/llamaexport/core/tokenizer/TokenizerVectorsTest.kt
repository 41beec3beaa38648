package org.llamaexport.core.tokenizer

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import org.llamaexport.core.JsonArray
import org.llamaexport.core.JsonFields
import org.llamaexport.core.JsonNumber
import org.llamaexport.core.JsonText
import org.llamaexport.core.PromptError
import org.llamaexport.core.Tokenizer
import org.llamaexport.core.fields
import org.llamaexport.core.loadTokenizer
import org.llamaexport.core.parseJson
import java.io.File
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull

/** The vectors that Python writes: every id and every piece of text must be the same. */
class TokenizerVectorsTest {
    private val demo = read("tokenizer.json")
    private val demoTokenizer = loadTokenizer(File(repository, "export/llama_export/demo"))
    private val small = read("small_tokenizers.json")
    private val tokenizers = small.list("tokenizers").associate {
        val described = it.fields("tokenizers")
        described.text("name") to loadTokenizer(File(vectors, "tokenizers/${described.text("name")}"))
    }

    @TestFactory
    fun `texts of the demo have Python's ids`(): List<DynamicTest> = demo.cases("encode").map { case ->
        dynamicTest(case.text("name")) {
            val text = case.text("text")
            val ids = demoTokenizer.encode(text)
            assertContentEquals(case.ids("ids"), ids)
            assertEquals(text, demoTokenizer.decode(ids))
        }
    }

    @TestFactory
    fun `ids of the demo have Python's text, whole and in pieces`(): List<DynamicTest> =
        demo.cases("decode").map { case ->
            dynamicTest(case.text("name")) { assertDecoded(demoTokenizer, case) }
        }

    @Test
    fun `the demo's size is Python's, and what is no text and no id is refused`() {
        val size = demo.fields("tokenizer").int("vocab_size")
        assertEquals(size, demoTokenizer.vocabSize)
        assertEquals("<|begin_of_text|>", demoTokenizer.tokenName(demoTokenizer.prefixIds.single()))
        assertNull(demoTokenizer.tokenName(0))
        for (case in demo.cases("refused_texts")) {
            val text = String(CharArray(case.ids("utf16").size) { case.ids("utf16")[it].toChar() })
            val message = assertFailsWith<PromptError> { demoTokenizer.encode(text) }.message.orEmpty()
            assertContains(message, "half of a surrogate pair, U+D", message = case.text("name"))
        }
        for (id in demo.ids("refused_ids")) {
            val error = assertFailsWith<PromptError> { demoTokenizer.decode(intArrayOf(id)) }
            assertEquals("token id $id is outside the vocabulary of $size", error.message)
        }
    }

    @TestFactory
    fun `small tokenizers are what Python takes them for`(): List<DynamicTest> =
        small.cases("tokenizers").map { case ->
            dynamicTest(case.text("name")) {
                val tokenizer = tokenizers.getValue(case.text("name"))
                assertEquals(case.int("vocab_size"), tokenizer.vocabSize)
                assertContentEquals(case.ids("prefix_ids"), tokenizer.prefixIds)
                val special = case.namedIds("special_tokens")
                assertEquals(special, tokenizer.specialTokens)
                val names = (special + case.namedIds("other_names")).entries.associate { it.value to it.key }
                for (id in -1..tokenizer.vocabSize) assertEquals(names[id], tokenizer.tokenName(id))
            }
        }

    @TestFactory
    fun `texts of small tokenizers have Python's ids`(): List<DynamicTest> {
        val texts = small.cases("texts")
        return small.cases("ids").flatMap { case ->
            val tokenizer = tokenizers.getValue(case.text("name"))
            texts.zip(case.list("ids")).map { (text, ids) ->
                dynamicTest("${case.text("name")}: ${text.text("name")}") {
                    assertContentEquals((ids as JsonArray).ints(), tokenizer.encode(text.text("text")))
                }
            }
        }
    }

    @Test
    fun `text behind something else has Python's ids`() {
        val texts = small.cases("texts")
        val continued = small.cases("continued").associateBy { it.text("name") }
        for ((name, tokenizer) in tokenizers) {
            val expected = continued[name]?.list("ids")
            for ((at, text) in texts.withIndex()) {
                val alone = tokenizer.encode(text.text("text"))
                val ids = tokenizer.encode(text.text("text"), continues = true)
                val right = if (expected == null) alone else (expected[at] as JsonArray).ints()
                assertContentEquals(right, ids, "$name: ${text.text("name")}")
            }
        }
        assertEquals(setOf("metaspace", "tinyllama"), continued.keys)
    }

    @TestFactory
    fun `ids of small tokenizers have Python's text, whole and in pieces`(): List<DynamicTest> =
        small.cases("decode").map { case ->
            val tokenizer = tokenizers.getValue(case.text("tokenizer"))
            dynamicTest(case.text("name")) { assertDecoded(tokenizer, case) }
        }

    private fun assertDecoded(tokenizer: Tokenizer, case: JsonFields) {
        val ids = case.ids("ids")
        assertEquals(case.text("text"), tokenizer.decode(ids))
        val stream = tokenizer.streamDecoder()
        val pieces = ids.map(stream::push)
        val rest = stream.flush()
        assertEquals(case.text("text"), pieces.joinToString("") + rest)
        // Where bytes are no character, it is not said when that becomes certain.
        if ('\uFFFD' !in case.text("text")) {
            assertEquals(case.list("pieces"), pieces.map(::JsonText))
            assertEquals(case.text("rest"), rest)
        }
        val again = ids.joinToString("", transform = stream::push) + stream.flush()
        assertEquals(case.text("text"), again)
    }

    private fun JsonFields.cases(key: String): List<JsonFields> = list(key).map { it.fields(key) }

    private fun JsonFields.ids(key: String): IntArray = JsonArray(list(key)).ints()

    private fun JsonFields.namedIds(key: String): Map<String, Int> =
        fields(key).json.entries.mapValues { (it.value as JsonNumber).int() }

    private fun JsonArray.ints(): IntArray = IntArray(items.size) { (items[it] as JsonNumber).int() }

    private companion object {
        val repository = File(System.getProperty("llama.repository"))
        val vectors = File(repository, "apps/shared/vectors")

        fun read(name: String): JsonFields {
            val found = parseJson(File(vectors, name).readText(), name).fields(name)
            check(found.int("format_version") == 1) { "$name has another format" }
            return found
        }
    }
}
