package org.llamaexport.core

import java.io.File
import java.io.RandomAccessFile
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

class ManifestTest {
    @TempDir
    lateinit var folder: File

    private fun parse(vararg others: Pair<String, Json?>): Manifest =
        Manifest.parse(testManifest(testFiles(), *others).write().toByteArray())

    private fun refusal(vararg others: Pair<String, Json?>): String =
        assertFailsWith<BundleError> { parse(*others) }.message.orEmpty()

    @Test
    fun `a manifest is read`() {
        val need = JsonObject("resident_bytes" to JsonNumber(5), "kv_bytes_per_token" to JsonNumber(7))
        val found = parse("memory" to need)
        assertEquals("onnx", found.target)
        assertEquals(setOf(9), found.stopIds)
        assertEquals(305_002L, found.sizeBytes)
        assertEquals(MemoryNeed(5, 7), found.memory)
        assertNull(parse().memory)
        assertNull(parse("chat" to JsonNull).chat)
    }

    @Test
    fun `a model whose head was pruned is refused where text is wanted`() {
        fun model(vararg own: Pair<String, Json>) = "model" to JsonObject(
            "name" to JsonText("guard"),
            "config" to JsonObject("llama_export" to JsonObject(*own)),
        )
        val pruned = parse(model("head_tokens" to JsonArray(listOf(JsonNumber(5), JsonNumber(7)))))
        val error = assertFailsWith<BundleError> { pruned.requireWriter() }
        assertContains(error.message.orEmpty(), "guard judges texts and cannot write any")
        parse(model("adaptor_rank" to JsonNumber(16))).requireWriter()
        parse().requireWriter()
    }

    @Test
    fun `a newer format names both versions`() {
        val newer = refusal("format_version" to JsonNumber(3))
        assertContains(newer, "format_version 3; this app reads format_version 2")
        assertContains(refusal("format_version" to JsonNumber(0)), "expected 1 or 2, found 0")
    }

    @Test
    fun `what is missing or wrong is named with its place`() {
        fun entry(digit: String, sizeBytes: Int) =
            JsonObject("sha256" to JsonText(digit.repeat(64)), "size_bytes" to JsonNumber(sizeBytes))

        val huge = JsonObject(
            "sha256" to JsonText("a".repeat(64)), "size_bytes" to JsonNumber(1L shl 53),
        )

        fun files(vararg names: String) = "files" to JsonObject(names.associateWith { entry("a", 1) })
        val cases = listOf(
            refusal("target" to null) to "manifest.json: the key target is missing",
            refusal("graph" to JsonArray(listOf())) to "graph: expected an object, found a list",
            refusal("artifact" to JsonText("other.onnx")) to "artifact: expected one of the files",
            refusal("artifact" to JsonText("../model.onnx")) to "one that leads out of the folder",
            refusal(files("../../app.db")) to "one that leads out of the folder",
            refusal(files("/etc/passwd")) to "one that is not relative",
            refusal(files("a\\b")) to "backslash",
            refusal(files("a", "A")) to "expected names that differ, found a",
            refusal("files" to JsonObject("a" to entry("A", 1))) to "64 hex",
            refusal("files" to JsonObject("a" to entry("a", -1))) to "expected a number of bytes, found -1",
            refusal("files" to JsonObject("a" to entry("a", 1), "b" to huge)) to
                "b: size_bytes: expected at most 9007199254740991 bytes, found 9007199254740992",
        )
        for ((found, words) in cases) assertContains(found, words)
    }

    @Test
    fun `stop ids lie inside the vocabulary`() {
        fun tokenizer(vararg ids: Json) = "tokenizer" to JsonObject(
            "file" to JsonText("sub/tokenizer.json"),
            "vocab_size" to JsonNumber(10),
            "stop_token_ids" to JsonArray(ids.toList()),
        )
        assertContains(refusal(tokenizer(JsonNumber(10))), "expected ids below 10, found 10")
        assertContains(refusal(tokenizer()), "expected at least one token id")
        assertContains(refusal(tokenizer(JsonText("9"))), "expected token ids, found a string")
    }

    @Test
    fun `what is no JSON is a damaged bundle`() {
        val error = assertFailsWith<BundleError> { Manifest.parse("{".toByteArray()) }
        assertContains(error.hint, "copy it again")
        val accented = testManifest(testFiles(), "target" to JsonText("\u00e9")).write()
        val latin = accented.toByteArray(Charsets.ISO_8859_1)
        val other = assertFailsWith<BundleError> { Manifest.parse(latin) }
        assertContains(other.message.orEmpty(), "is not UTF-8")
    }

    @Test
    fun `a manifest of gigabytes is not read`() {
        val bundle = writeBundle(File(folder, "b"))
        RandomAccessFile(File(bundle, MANIFEST_NAME), "rw").use { it.setLength(3L shl 30) }
        val error = assertFailsWith<BundleError> { Bundle.open(bundle) }
        assertContains(error.message.orEmpty(), "manifest.json is larger than 16777216 bytes")
    }

    @Test
    fun `a bundle is opened, and every changed byte is found`() {
        val files = testFiles()
        val bundle = Bundle.open(writeBundle(File(folder, "b"), files))
        assertTrue(bundle.checkHashes { true })
        assertFalse(bundle.checkHashes { false })
        for (path in listOf("model.onnx", "sub/tokenizer.json")) {
            val changed = files.getValue(path).clone()
            changed[changed.size / 2] = (changed[changed.size / 2] + 1).toByte()
            bundle.folder.at(path).writeBytes(changed)
            val error = assertFailsWith<BundleError> { bundle.checkHashes { true } }
            assertContains(error.message.orEmpty(), "$path has other bytes")
            bundle.folder.at(path).writeBytes(files.getValue(path))
        }
    }

    @Test
    fun `a folder that was half copied names what is missing`() {
        val bundle = writeBundle(File(folder, "b"))
        File(bundle, "config.json").delete()
        File(bundle, "model.onnx").writeBytes(ByteArray(7))
        val message = assertFailsWith<BundleError> { Bundle.open(bundle) }.message.orEmpty()
        assertContains(message, "config.json is missing")
        assertContains(message, "model.onnx has 7 bytes, and the manifest says 300000")
        File(bundle, MANIFEST_NAME).delete()
        assertContains(assertFailsWith<BundleError> { Bundle.open(bundle) }.message.orEmpty(), "no bundle")
    }
}
