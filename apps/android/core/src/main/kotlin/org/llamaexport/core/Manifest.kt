package org.llamaexport.core

import org.llamaexport.core.tokenizer.textOf

/** Newest version of manifest.json that this app reads. */
const val MANIFEST_VERSION: Int = 2

/** Largest length of a manifest.json; that of an 8B has under 200 kB. */
internal const val MOST_MANIFEST_BYTES: Int = 16 * 1024 * 1024

private const val FIRST_VERSION = 1
private const val OWN_KEY = "llama_export"
private const val HEAD_TOKENS = "head_tokens"
private const val SHA256_DIGITS = 64

/** Largest size of a bundle; beyond it sizes could not be added up. */
private const val MOST_BUNDLE_BYTES = 1L shl 53
private const val DAMAGED = "The bundle was changed or is damaged: copy it again, or export it again."

/** The fingerprint of a file: its SHA-256 in lower-case hex, and its length. */
data class FileEntry(val sha256: String, val sizeBytes: Long)

/**
 * What a model needs of memory, as the exporter counts it.
 *
 * @property residentBytes what stays in memory besides the cache
 * @property kvBytesPerToken growth of the KV cache with each token
 */
data class MemoryNeed(val residentBytes: Long, val kvBytesPerToken: Long)

/**
 * manifest.json: what a bundle holds and how it is run.
 *
 * @property formatVersion version of the format
 * @property target runtime that the artifact is for: `onnx`, `executorch` or `coreml`
 * @property artifact path inside the folder of what the runtime loads
 * @property modelName name that people know the model by
 * @property maxContext largest number of positions in a conversation
 * @property allLogits whether a call gives the logits of every position, or the last one's alone
 * @property recipe how the weights are stored, such as `int4`
 * @property bitsPerWeight mean number of bits of a weight
 * @property tokenizerFile path inside the folder of the tokenizer
 * @property vocabSize number of token ids
 * @property stopIds ids that end an answer
 * @property files fingerprint of each file by its path inside the folder
 * @property createdWith versions by package name
 * @property memory what the model needs; null: the exporter was too old to say
 * @property isPruned whether the head gives some tokens' logits alone: it classifies and cannot write
 * @property chat the manifest's object `chat`; null: the exporter was too old to say
 */
data class Manifest(
    val formatVersion: Int,
    val target: String,
    val artifact: String,
    val modelName: String,
    val maxContext: Int,
    val allLogits: Boolean,
    val recipe: String,
    val bitsPerWeight: Double,
    val tokenizerFile: String,
    val vocabSize: Int,
    val stopIds: Set<Int>,
    val files: Map<String, FileEntry>,
    val createdWith: Map<String, String>,
    val memory: MemoryNeed?,
    val isPruned: Boolean,
    val chat: JsonFields?,
) {
    /** Size of the listed files together, without the manifest. */
    val sizeBytes: Long get() = files.values.sumOf { it.sizeBytes }

    /**
     * Refuse a model that cannot write, because its head was pruned to the words of a verdict.
     *
     * @throws BundleError it is such a model
     */
    fun requireWriter() {
        if (!isPruned) return
        throw BundleError(
            "$modelName judges texts and cannot write any: its head was pruned to a few tokens",
            "Ask it with llama-export classify, or export the model without --head-tokens.",
            kind = ErrorKind.OTHER,
        )
    }

    companion object {
        /**
         * Parse the bytes of a manifest.json.
         *
         * @param where path or address, for messages
         * @throws BundleError it is no manifest, one of a newer format, or one that cannot be trusted
         */
        fun parse(content: ByteArray, where: String = MANIFEST_NAME): Manifest {
            if (content.size > MOST_MANIFEST_BYTES) {
                throw BundleError("$where is larger than $MOST_MANIFEST_BYTES bytes", DAMAGED)
            }
            try {
                val top = parseJson(textOf(content, where), where).fields(where)
                return ManifestReader(top).read()
            } catch (error: BadInput) {
                throw BundleError(error.message.orEmpty(), DAMAGED, error)
            }
        }
    }
}

private class ManifestReader(private val top: JsonFields) {
    fun read(): Manifest {
        val version = top.int("format_version")
        requireKnown(version)
        val graph = top.fields("graph")
        val quantization = top.fields("quantization")
        val tokenizer = top.fields("tokenizer")
        val vocabSize = positive(tokenizer, "vocab_size")
        requireBeginning(tokenizer, vocabSize)
        val files = files(top.fields("files"))
        return Manifest(
            formatVersion = version,
            target = top.text("target"),
            artifact = path(top, "artifact"),
            modelName = top.fields("model").text("name"),
            maxContext = positive(graph, "max_context"),
            allLogits = graph.bool("all_logits"),
            recipe = quantization.text("recipe"),
            bitsPerWeight = quantization.double("bits_per_weight"),
            tokenizerFile = path(tokenizer, "file"),
            vocabSize = vocabSize,
            stopIds = ids(tokenizer, "stop_token_ids", vocabSize),
            files = files,
            createdWith = texts(top.fields("created_with")),
            memory = if ("memory" in top) memory(top.fields("memory")) else null,
            isPruned = isPruned(top.fields("model")),
            chat = if ("chat" in top) top.fields("chat") else null,
        ).also(::requireListed)
    }

    private fun isPruned(model: JsonFields): Boolean {
        val config = if ("config" in model) model.fields("config") else return false
        return OWN_KEY in config && HEAD_TOKENS in config.fields(OWN_KEY)
    }

    private fun requireKnown(version: Int) {
        if (version > MANIFEST_VERSION) {
            throw BundleError(
                "${top.where} has format_version $version; this app reads format_version $MANIFEST_VERSION",
                "Update the app, or export the model again with an older llama-export.",
                kind = ErrorKind.NEWER_FORMAT,
            )
        }
        if (version < FIRST_VERSION) fault(top, "format_version", "1 or $MANIFEST_VERSION", version)
    }

    private fun requireBeginning(tokenizer: JsonFields, vocabSize: Int) {
        val key = "bos_token_id"
        if (key !in tokenizer) return
        val id = tokenizer.int(key)
        if (id < 0 || id >= vocabSize) fault(tokenizer, key, "an id below $vocabSize", id)
    }

    private fun requireListed(manifest: Manifest) {
        val files = manifest.files.keys
        // A Core ML package is a folder: its files are listed, not itself.
        val listed = manifest.artifact in files || files.any { it.startsWith(manifest.artifact + "/") }
        if (!listed) fault(top, "artifact", "one of the files", manifest.artifact)
        if (manifest.tokenizerFile !in files) {
            fault(top.fields("tokenizer"), "file", "one of the files", manifest.tokenizerFile)
        }
    }

    private fun path(owner: JsonFields, key: String): String {
        val path = owner.text(key)
        pathFault(path)?.let { fault(owner, key, "a path inside the folder", "one that $it") }
        return path
    }

    private fun positive(owner: JsonFields, key: String): Int {
        val number = owner.int(key)
        if (number < 1) fault(owner, key, "a number above 0", number)
        return number
    }

    private fun notNegative(owner: JsonFields, key: String): Long {
        val number = owner.long(key)
        if (number < 0) fault(owner, key, "a number of bytes", number)
        return number
    }

    private fun ids(owner: JsonFields, key: String, vocabSize: Int): Set<Int> {
        val ids = owner.list(key).map {
            (it as? JsonNumber)?.text?.toIntOrNull() ?: fault(owner, key, "token ids", it.kind)
        }
        val outside = ids.firstOrNull { it < 0 || it >= vocabSize }
        if (outside != null) fault(owner, key, "ids below $vocabSize", outside)
        if (ids.isEmpty()) fault(owner, key, "at least one token id", "none")
        return ids.toSet()
    }

    private fun files(owner: JsonFields): Map<String, FileEntry> {
        // Two names that differ in their case are one file on many systems.
        val seen = HashMap<String, String>()
        var left = MOST_BUNDLE_BYTES
        return owner.json.entries.keys.associateWith { path ->
            pathFault(path)?.let { fault(owner, path, "a path inside the folder", "one that $it") }
            val other = seen.put(path.lowercase(), path)
            if (other != null) fault(owner, path, "names that differ", other)
            val entry = owner.fields(path)
            FileEntry(sha256(entry), notNegative(entry, "size_bytes")).also {
                if (it.sizeBytes > left) fault(entry, "size_bytes", "at most $left bytes", it.sizeBytes)
                left -= it.sizeBytes
            }
        }
    }

    private fun sha256(entry: JsonFields): String {
        val text = entry.text("sha256")
        val sound = text.length == SHA256_DIGITS && text.all { it in '0'..'9' || it in 'a'..'f' }
        if (!sound) fault(entry, "sha256", "$SHA256_DIGITS hex digits", text.take(SHA256_DIGITS))
        return text
    }

    private fun texts(owner: JsonFields): Map<String, String> =
        owner.json.entries.keys.associateWith { owner.text(it) }

    private fun memory(owner: JsonFields) =
        MemoryNeed(notNegative(owner, "resident_bytes"), notNegative(owner, "kv_bytes_per_token"))

    private fun fault(owner: JsonFields, key: String, expected: String, found: Any): Nothing =
        throw BundleError("${owner.at(key)}: expected $expected, found $found", DAMAGED)
}
