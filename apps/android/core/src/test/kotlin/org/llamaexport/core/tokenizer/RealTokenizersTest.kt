package org.llamaexport.core.tokenizer

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir
import org.llamaexport.core.JsonText
import org.llamaexport.core.fields
import org.llamaexport.core.loadTokenizer
import org.llamaexport.core.parseJson
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** A megabyte of mixed text by real vocabularies, as tools/apps/tokenizer_fixtures.py hashed it. */
@Tag("bundles")
class RealTokenizersTest {
    @TempDir
    lateinit var folder: File

    @TestFactory
    fun `every part has Python's ids and text`(): List<DynamicTest> {
        val file = File(fixtures, "texts.json")
        val texts = parseJson(file.readText(), file.name).fields(file.name).list("texts")
            .map { (it as JsonText).value }
        val names = fixtures.listFiles().orEmpty().filter { it.isDirectory }.map { it.name }.sorted()
        return names.flatMap { name ->
            val whole = dynamicTest(name) { assertSame(name, File(fixtures, name), texts) }
            val json = dynamicTest("$name without tokenizer.model") {
                for (file in listOf("tokenizer.json", "tokenizer_config.json")) {
                    File(fixtures, "$name/$file").copyTo(File(folder, file), overwrite = true)
                }
                assertSame(name, folder, texts)
            }
            listOf(whole, json)
        }
    }

    @Test
    fun `the tokenizer json of an export is known without parsing it, and one byte of it counts`() {
        val folder = File(fixtures, "demo")
        val tokens = RankTokens.parse(File(folder, "tokenizer.model").readBytes(), "tokenizer.model")
        val json = File(folder, "tokenizer.json").readBytes()
        assertTrue(Llama3Json.isMadeOf(tokens, json))
        for (at in json.indices step 997) {
            json[at]++
            assertFalse(Llama3Json.isMadeOf(tokens, json), "byte $at")
            json[at]--
        }
        assertFalse(Llama3Json.isMadeOf(tokens, json + 10))
        assertFalse(Llama3Json.isMadeOf(tokens, json.copyOf(json.size - 1)))
    }

    private fun assertSame(name: String, folder: File, texts: List<String>) {
        val expected = parseJson(File(fixtures, "$name.json").readText(), name).fields(name)
        val tokenizer = loadTokenizer(folder)
        assertEquals(expected.int("vocab_size"), tokenizer.vocabSize)
        val hashes = expected.list("ids_sha256").map { (it as JsonText).value }
        assertEquals(hashes.size, texts.size)
        // SentencePiece's own letter for a blank comes back as a blank, for example.
        val changed = expected.fields("changed").json
        for ((index, text) in texts.withIndex()) {
            val ids = tokenizer.encode(text)
            assertEquals(hashes[index], sha256(ids), "part $index: ${text.take(80)}")
            assertEquals(changed["$index"] ?: JsonText(text), JsonText(tokenizer.decode(ids)), "part $index")
        }
    }

    private fun sha256(ids: IntArray): String {
        val bytes = ByteBuffer.allocate(Int.SIZE_BYTES * ids.size).order(ByteOrder.LITTLE_ENDIAN)
        ids.forEach { bytes.putInt(it) }
        val digest = MessageDigest.getInstance("SHA-256").digest(bytes.array())
        return digest.joinToString("") { "%02x".format(it) }
    }

    private companion object {
        val fixtures = File(System.getProperty("llama.fixtures"), "tokenizers")
    }
}
