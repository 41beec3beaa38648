package org.llamaexport.app

import java.io.File
import java.nio.FloatBuffer
import java.security.MessageDigest
import java.util.concurrent.Semaphore
import org.llamaexport.core.Bundle
import org.llamaexport.core.StepModel
import org.llamaexport.core.StreamDecoder
import org.llamaexport.core.Tokenizer
import org.llamaexport.core.requireTokens
import org.llamaexport.core.toHex

const val USER = 256
const val ASSISTANT = 257
const val END = 258
const val SYSTEM = 259
const val VOCAB = 260

/** Engines whose models answer what a test says, letter by letter. */
class FakeEngines : Engines {
    /** What a model answers to a message. */
    var reply: (String) -> String = { "You said: $it." }

    /** What reads and writes letters. */
    var tokenizer: Tokenizer = LetterTokenizer

    /** Permits for letters of answers; null: as many as there are. */
    @Volatile
    var gate: Semaphore? = null

    /** Thrown when a model is opened, or in the middle of an answer. */
    var onOpen: () -> Unit = {}
    var onLetter: (Int) -> Unit = {}

    /** Called before each call of a model. */
    var onStep: () -> Unit = {}

    /** Names of the threads that called a model. */
    val threads: MutableSet<String> = java.util.Collections.synchronizedSet(HashSet())

    /** Number of models that are open. */
    @Volatile
    var openCount = 0

    override fun openEngine(bundle: Bundle, contextTokens: Int): StepModel {
        threads += Thread.currentThread().name
        onOpen()
        openCount += 1
        return FakeModel(this, contextTokens)
    }

    override fun openTokenizer(folder: File): Tokenizer = tokenizer

    override fun runtimeOf(target: String): String = "fake 1"
}

/** Reads turns of letters, and knows after each token the one and only next. */
class FakeModel(private val engines: FakeEngines, override val maxContext: Int) : StepModel {
    override val vocabSize: Int = VOCAB
    private val read = ArrayList<Int>()
    private val logits = FloatBuffer.allocate(VOCAB)

    override fun step(ids: IntArray, position: Int): FloatBuffer {
        engines.threads += Thread.currentThread().name
        engines.onStep()
        requireTokens(ids, position, read.size)
        while (read.size > position) read.removeAt(read.size - 1)
        read.addAll(ids.asList())
        for (id in 0 until VOCAB) logits.put(id, 0f)
        logits.put(next(), 60f)
        return logits
    }

    override fun close() {
        engines.threads += Thread.currentThread().name
        engines.openCount -= 1
    }

    private fun next(): Int {
        val begin = read.lastIndexOf(ASSISTANT)
        if (begin < 0) return END
        val user = read.subList(0, begin).lastIndexOf(USER)
        val question = bytesOf(read.subList(user + 1, begin - 1)).toString(Charsets.UTF_8)
        val answer = engines.reply(question).toByteArray()
        val at = read.size - begin - 1
        engines.onLetter(at)
        engines.gate?.acquire()
        return if (at < answer.size) answer[at].toInt() and 0xFF else END
    }
}

private fun bytesOf(ids: List<Int>) = ByteArray(ids.size) { ids[it].toByte() }

/** Letters are bytes. */
object LetterTokenizer : Tokenizer {
    override val vocabSize: Int = VOCAB
    override val specialTokens: Map<String, Int> = emptyMap()
    override val prefixIds: IntArray = intArrayOf()

    override fun encode(text: String, continues: Boolean): IntArray =
        text.toByteArray().map { it.toInt() and 0xFF }.toIntArray()

    override fun tokenName(id: Int): String? = null

    override fun decode(ids: IntArray): String = bytesOf(ids.asList()).toString(Charsets.UTF_8)

    override fun streamDecoder(continues: Boolean): StreamDecoder = object : StreamDecoder {
        private var held = ByteArray(0)

        override fun push(id: Int): String {
            held += id.toByte()
            val text = held.toString(Charsets.UTF_8)
            if (text.endsWith('\uFFFD') && held.size < 4) return ""
            held = ByteArray(0)
            return text
        }

        override fun flush(): String = held.toString(Charsets.UTF_8).also { held = ByteArray(0) }
    }
}

/**
 * Write a bundle that the fake engines open.
 *
 * @param memory resident bytes and bytes a token; null: the manifest does not say
 */
fun writeFakeBundle(
    folder: File,
    memory: Pair<Long, Long>? = 1_000_000L to 100L,
    version: Int = 2,
    hasTurns: Boolean = true,
    hasSystem: Boolean = true,
    maxContext: Int = 2048,
): File {
    val files = mapOf("model.onnx" to ByteArray(4_200_000) { 1 }, "tokenizer.json" to "{}".toByteArray())
    folder.mkdirs()
    files.forEach { (name, content) -> File(folder, name).writeBytes(content) }
    val listed = files.entries.joinToString(",") { (name, content) ->
        val hash = MessageDigest.getInstance("SHA-256").digest(content).toHex()
        """"$name":{"sha256":"$hash","size_bytes":${content.size}}"""
    }
    val system = if (hasSystem) """{"prefix":[$SYSTEM],"suffix":[$END]}""" else "null"
    val turns = """{"begin":[],"no_system":[],"system":$system,
        "user":{"prefix":[$USER],"suffix":[$END]},"assistant":{"prefix":[$ASSISTANT],"suffix":[$END]},
        "answer":[$ASSISTANT],"trim":[],"thoughts_end":null}"""
    val chat = if (hasTurns) """{"turns":$turns,"reason":null}"""
    else """{"turns":null,"reason":"it is a base model"}"""
    val need = memory?.let { (resident, perToken) ->
        """"memory":{"resident_bytes":$resident,"kv_bytes_per_token":$perToken},"""
    } ?: ""
    File(folder, "manifest.json").writeText(
        """{"format_version":$version,"target":"onnx","artifact":"model.onnx","model":{"name":"test"},
        "graph":{"max_context":$maxContext,"all_logits":false},
        "quantization":{"recipe":"int4","bits_per_weight":5.25},$need"chat":$chat,
        "tokenizer":{"file":"tokenizer.json","vocab_size":$VOCAB,"stop_token_ids":[$END]},
        "files":{$listed},"created_with":{"llama-export":"0.1.0"}}""",
    )
    return folder
}
