package org.llamaexport.core.tokenizer

import org.junit.jupiter.api.io.TempDir
import org.llamaexport.core.AppError
import org.llamaexport.core.Json
import org.llamaexport.core.JsonArray
import org.llamaexport.core.JsonBool
import org.llamaexport.core.JsonNumber
import org.llamaexport.core.JsonObject
import org.llamaexport.core.JsonText
import org.llamaexport.core.loadTokenizer
import org.llamaexport.core.parseJson
import org.llamaexport.core.write
import java.io.File
import java.util.Base64
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** Which files are read, which counts, and what is refused with a word on what to do. */
class TokenizerFilesTest {
    @TempDir
    lateinit var folder: File
    private val repository = File(System.getProperty("llama.repository"))
    private val ranks = File(repository, "export/llama_export/demo/tokenizer.model").readBytes()

    private fun small(name: String): JsonObject {
        val file = File(repository, "apps/shared/vectors/tokenizers/$name/tokenizer.json")
        return parseJson(file.readText(), name) as JsonObject
    }

    private fun put(name: String, text: String) = File(folder, name).writeText(text)

    private fun refused(): String {
        val error = assertFailsWith<AppError> { loadTokenizer(folder) }
        assertTrue(error.hint.isNotEmpty(), error.message)
        return error.message.orEmpty()
    }

    private fun assertRefused(document: JsonObject, vararg parts: String) {
        put("tokenizer.json", document.write())
        val message = refused()
        for (part in parts) assertContains(message, part)
    }

    private fun JsonObject.with(key: String, value: Json) = JsonObject(entries + (key to value))

    private fun JsonObject.withModel(key: String, value: Json) =
        with("model", (this["model"] as JsonObject).with(key, value))

    private fun step(type: String, vararg keys: Pair<String, Json>) =
        JsonObject("type" to JsonText(type), *keys)

    @Test
    fun `a folder without a tokenizer is refused`() {
        assertContains(refused(), "holds no tokenizer: expected tokenizer.json or tokenizer.model")
    }

    @Test
    fun `what is no tokenizer is named`() {
        val cases = mapOf(
            "" to "an empty file",
            "version https://git-lfs.github.com/spec/v1\n" to "a Git LFS pointer",
            "<html>\n" to "a file that begins with \"<html>",
            "\n\u0010\n\u0003abc" to "is a SentencePiece model, which this app does not read",
        )
        for ((content, found) in cases) {
            put("tokenizer.model", content)
            assertContains(refused(), found)
        }
        put("tokenizer.json", "{\"model\": ")
        assertContains(refused(), "tokenizer.json is not valid JSON")
        File(folder, "tokenizer.json").writeBytes(byteArrayOf('{'.code.toByte(), -1))
        assertContains(refused(), "tokenizer.json is not UTF-8")
    }

    private fun longToken(number: Int, rank: Int): String =
        "${Base64.getEncoder().encodeToString("$number".padEnd(256).toByteArray())} $rank"

    @Test
    fun `damaged ranks are named with their line`() {
        val lines = ranks.decodeToString().trimEnd().lines()
        val cases = mapOf(
            "line 2: expected `base64 rank`" to (lines.take(1) + "####" + lines.drop(2)),
            "line 4097: the rank 7 is given twice" to (lines + "YWFhYWFhYWFhYWFh 7"),
            "the ranks of its" to (lines.take(300) + lines.drop(301)),
            "stands there twice" to (lines + "${lines[300].substringBefore(' ')} ${lines.size}"),
            "single bytes have no token" to lines.filterIndexed { index, _ -> index >= 4 }
                .mapIndexed { index, line -> "${line.substringBefore(' ')} $index" },
            "is too large" to (lines + "YWFhYWFhYWFhYWFh 99999999"),
            "have more than 4194304 bytes" to (lines + List(17_000) { longToken(it, lines.size + it) }),
        )
        for ((expected, content) in cases) {
            put("tokenizer.model", content.joinToString("\n").replace("line 4097", "x"))
            val message = refused()
            assertContains(message, expected.replace("4097", "${lines.size + 1}"))
        }
        put("tokenizer.model", lines.joinToString("\r\n"))
        assertEquals(lines.size + 256, loadTokenizer(folder).vocabSize)
    }

    @Test
    fun `the tokenizer json that an export makes of the ranks is known, and any other counts`() {
        val made = RankTokens.parse(ranks, "tokenizer.model")
        assertFalse(Llama3Json.isMadeOf(made, "{\"version\":\"1.0\",".encodeToByteArray()))
        File(folder, "tokenizer.model").writeBytes(ranks)
        put("tokenizer.json", small("llama3").write())
        assertTrue("<|im_start|>" in loadTokenizer(folder).specialTokens)
        File(folder, "tokenizer.json").delete()
        assertTrue("<|eot_id|>" in loadTokenizer(folder).specialTokens)
    }

    @Test
    fun `steps that are not done are refused by name`() {
        val llama3 = small("llama3")
        val llama2 = small("llama2")
        val flags = listOf("add_prefix_space", "use_regex").map { it to JsonBool(false) }
        val byteLevel = step("ByteLevel", *flags.toTypedArray())
        val other = step(
            "Split",
            "pattern" to JsonObject("Regex" to JsonText("\\w+")),
            "behavior" to JsonText("Isolated"),
            "invert" to JsonBool(false),
        )
        val sequence = step("Sequence", "pretokenizers" to JsonArray(listOf(other, byteLevel)))
        assertRefused(llama3.with("normalizer", step("NFC")), "the normalizer has NFC", "expected Prepend")
        assertRefused(llama3.with("pre_tokenizer", sequence), "the pre_tokenizer has Split", "w+")
        assertRefused(llama3.with("pre_tokenizer", step("Whitespace")), "the pre_tokenizer has Whitespace")
        assertRefused(
            llama3.with("pre_tokenizer", byteLevel.with("add_prefix_space", JsonBool(true))),
            "the pre_tokenizer has add_prefix_space",
        )
        assertRefused(llama3.with("decoder", step("WordPiece")), "the decoder has WordPiece")
        assertRefused(llama3.with("post_processor", step("BertProcessing")), "the post_processor has Bert")
        assertRefused(llama3.withModel("type", JsonText("Unigram")), "the model has a model of type Unigram")
        assertRefused(llama3.withModel("dropout", JsonNumber(1)), "the model has dropout")
        assertRefused(llama3.withModel("end_of_word_suffix", JsonText("</w>")), "end_of_word_suffix")
        val precompiled = step("Precompiled", "precompiled_charsmap" to JsonText(""))
        assertRefused(llama2.with("normalizer", precompiled), "the normalizer has Precompiled")
    }

    @Test
    fun `damage in a tokenizer json is named`() {
        val llama3 = small("llama3")
        val merges = { merge: String -> JsonArray(listOf(JsonText(merge))) }
        assertRefused(llama3.withModel("merges", merges("qq zz")), "\"qq\", which is no token")
        assertRefused(llama3.withModel("merges", merges("q")), "a merge must be two tokens")
        assertRefused(llama3.withModel("vocab", JsonObject("a" to JsonNumber(-1))), "\"a\" has no id")
        assertRefused(llama3.withModel("vocab", JsonArray(emptyList())), "vocab: expected an object")
        assertRefused(llama3.withModel("unk_token", JsonText("<gone>")), "unk_token \"<gone>\" is no token")
        val empty = JsonArray(listOf(JsonObject()))
        assertRefused(llama3.with("added_tokens", empty), "the key content is missing")
        assertRefused(llama3.with("added_tokens", JsonObject()), "added_tokens: expected a list")
        val twice = JsonObject("a" to JsonNumber(0), "b" to JsonNumber(0))
        assertRefused(llama3.withModel("vocab", twice), "the tokens \"a\" and \"b\" have one id")
        val half = JsonObject("a\uD83D" to JsonNumber(0))
        assertRefused(llama3.withModel("vocab", half), "half of a surrogate pair")
        // Tables of so many ids would take hundreds of megabytes.
        val far = JsonObject("a" to JsonNumber((1 shl 24) - 1))
        assertRefused(llama3.withModel("vocab", far), "\"a\" has no id")
        val steps = step("Sequence", "processors" to JsonText("none"))
        assertRefused(llama3.with("post_processor", steps), "processors: expected a list")
        val bos = JsonObject("SpecialToken" to JsonObject("id" to JsonText("<s>")))
        val odd = JsonObject("<s>" to JsonObject("ids" to JsonArray(listOf(JsonNumber("1.5")))))
        val template = step("TemplateProcessing", "single" to JsonArray(listOf(bos)), "special_tokens" to odd)
        assertRefused(llama3.with("post_processor", template), "post_processor: expected ids, found \"1.5\"")
        val none = llama3.withModel("vocab", JsonObject()).with("added_tokens", JsonArray(emptyList()))
        assertRefused(none, "it has no tokens")
        put("tokenizer.json", llama3.write())
        put("tokenizer_config.json", "{\"bos_token\": 5}")
        assertContains(refused(), "bos_token: expected a token's name")
    }

    @Test
    fun `a token in a single word is refused unless text never becomes it`() {
        val llama3 = small("llama3")
        val token = ((llama3["added_tokens"] as JsonArray).items[0] as JsonObject)
            .with("single_word", JsonBool(true)).with("content", JsonText("<x>")).with("id", JsonNumber(429))
        val plain = llama3.with("added_tokens", JsonArray(listOf(token.with("special", JsonBool(false)))))
        assertRefused(plain, "the added token \"<x>\", found as a single word only")
        put("tokenizer.json", llama3.with("added_tokens", JsonArray(listOf(token))).write())
        assertTrue("<x>" in loadTokenizer(folder).specialTokens)
    }

    @Test
    fun `a merge that makes a control token of text is left out`() {
        val llama3 = small("llama3")
        val model = llama3["model"] as JsonObject
        val vocabulary = JsonObject(
            (model["vocab"] as JsonObject).entries + ("#q" to JsonNumber(600)) + ("#qx" to JsonNumber(601)),
        )
        val merges = JsonArray((model["merges"] as JsonArray).items + JsonText("# q") + JsonText("#q x"))
        put("tokenizer.json", llama3.withModel("vocab", vocabulary).withModel("merges", merges).write())
        assertContentEquals(intArrayOf(601), loadTokenizer(folder).encode("#qx"))
        val added = "\"added_tokens_decoder\": {\"601\": {\"content\": \"#qx\", \"special\": true}}"
        for (settings in listOf("{\"pad_token\": \"#qx\"}", "{$added}")) {
            put("tokenizer_config.json", settings)
            val found = loadTokenizer(folder)
            assertEquals(601, found.specialTokens["#qx"])
            assertEquals("#qx", found.decode(found.encode("#qx")))
            assertFalse(601 in found.encode("#qx"))
        }
    }

    @Test
    fun `the settings name control tokens, and add tokens in the order of their ids`() {
        put("tokenizer.json", small("smollm2").write())
        val added = "{\"428\": {\"content\": \"<t>\", \"special\": null}, \"427\": \"<u>\"}"
        put(
            "tokenizer_config.json",
            "{\"eos_token\": {\"content\": \"[F]\"}, \"pad_token\": \"[P]\", \"cls_token\": null, " +
                "\"extra_special_tokens\": {\"image\": \"[I]\"}, \"added_tokens_decoder\": $added}",
        )
        val found = loadTokenizer(folder)
        val bracketed = found.specialTokens.keys.filter { it.startsWith("[") }
        assertEquals(setOf("[P]", "[F]", "[I]"), bracketed.toSet())
        val ids = found.encode("<u><t>")
        assertEquals(listOf("<u>", "<t>"), ids.map(found::tokenName))
        assertEquals(ids[0] + 1, ids[1])
        assertNull(found.specialTokens["<t>"])
        assertContentEquals(intArrayOf(), found.prefixIds)
    }

    @Test
    fun `settings of other kinds are refused with their key`() {
        put("tokenizer.json", small("smollm2").write())
        val cases = mapOf(
            "{\"additional_special_tokens\": \"<x>\"}" to "additional_special_tokens: expected a list",
            "{\"added_tokens_decoder\": [\"<x>\"]}" to "added_tokens_decoder: expected an object",
            "{\"added_tokens_decoder\": {\"x\": \"<x>\"}}" to "expected ids of tokens as keys, found \"x\"",
            "{\"added_tokens_decoder\": {\"7\": {\"content\": \"<x>\", \"special\": 1}}}" to
                "\"7\": special: expected true or false",
            "{\"added_tokens_decoder\": {\"7\": {}}}" to "\"7\": expected a token's name",
            "{\"pad_token\": \"\\ud800\"}" to "pad_token: expected a token's name",
        )
        for ((settings, expected) in cases) {
            put("tokenizer_config.json", settings)
            assertContains(refused(), expected)
        }
        val many = List(40_000) { "\"<$it>\"" }.joinToString()
        put("tokenizer_config.json", "{\"additional_special_tokens\": [$many]}")
        assertContains(refused(), "40000 added tokens, expected at most 32768")
    }
}
