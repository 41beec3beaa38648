package org.llamaexport.core

import java.io.File
import java.security.MessageDigest
import kotlin.random.Random

fun digestOf(content: ByteArray): String = MessageDigest.getInstance("SHA-256").digest(content).toHex()

/** Files of a made-up bundle by path, without its manifest. */
fun testFiles(seed: Int = 0, artifactBytes: Int = 300_000): Map<String, ByteArray> = mapOf(
    "config.json" to "{}".toByteArray(),
    "model.onnx" to Random(seed).nextBytes(artifactBytes),
    "empty" to ByteArray(0),
    "sub/tokenizer.json" to Random(seed + 1).nextBytes(5000),
)

/** Return a manifest of files, with some of its keys replaced or, by null, left out. */
fun testManifest(files: Map<String, ByteArray>, vararg others: Pair<String, Json?>): JsonObject {
    val entries = files.mapValues { (_, content) ->
        JsonObject("sha256" to JsonText(digestOf(content)), "size_bytes" to JsonNumber(content.size))
    }
    val all: Map<String, Json?> = mapOf(
        "format_version" to JsonNumber(2),
        "target" to JsonText("onnx"),
        "artifact" to JsonText("model.onnx"),
        "model" to JsonObject("name" to JsonText("test")),
        "graph" to JsonObject("max_context" to JsonNumber(128), "all_logits" to JsonBool(false)),
        "quantization" to JsonObject("recipe" to JsonText("int4"), "bits_per_weight" to JsonNumber(5.25)),
        "tokenizer" to JsonObject(
            "file" to JsonText("sub/tokenizer.json"),
            "vocab_size" to JsonNumber(10),
            "stop_token_ids" to JsonArray(listOf(JsonNumber(9))),
        ),
        "files" to JsonObject(entries),
        "created_with" to JsonObject("llama-export" to JsonText("0.1.0")),
    ) + others
    return JsonObject(all.mapNotNull { (key, value) -> value?.let { key to it } }.toMap())
}

/** Write a bundle into a folder. */
fun writeBundle(folder: File, files: Map<String, ByteArray> = testFiles()): File {
    for ((path, content) in files) folder.at(path).apply { parentFile.mkdirs() }.writeBytes(content)
    File(folder, MANIFEST_NAME).writeText(testManifest(files).write())
    return folder
}
