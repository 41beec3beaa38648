package org.llamaexport.engine.onnx

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File
import java.nio.FloatBuffer
import java.nio.LongBuffer
import org.llamaexport.core.BundleError
import org.llamaexport.core.PIECE_TOKENS
import org.llamaexport.core.StepModel
import org.llamaexport.core.StepStopped
import org.llamaexport.core.directBuffer
import org.llamaexport.core.requireTokens
import org.llamaexport.core.show

/**
 * An ONNX artifact in onnxruntime, with its KV cache in place.
 *
 * A layer's cache is its input and its output at once, so a step appends rows and copies nothing,
 * and a shorter attention mask is all that a rewind takes. Prompts are run in pieces, between which
 * [stop] is seen; within a piece onnxruntime itself is told. Make one with [open].
 */
class OnnxStepModel private constructor(
    private val owned: Closing,
    private val environment: OrtEnvironment,
    private val session: OrtSession,
    private val signature: Signature,
    override val maxContext: Int,
) : StepModel {
    private class Signature(
        val vocabSize: Int,
        val heads: Long,
        val headDim: Long,
        val caches: List<String>,
    )

    override val vocabSize: Int = signature.vocabSize

    private val options = owned.add(OrtSession.RunOptions())
    private val caches = owned.add(
        KeyValueCaches(environment, signature.caches, signature.heads, signature.headDim, maxContext),
    )
    private val ids = directBuffer(PIECE, Long.SIZE_BYTES).asLongBuffer()
    private val mask = directBuffer(maxContext, Long.SIZE_BYTES).asLongBuffer()
    private val logits = directBuffer(vocabSize, Float.SIZE_BYTES).asFloatBuffer()
    private val logitsTensor = owned.add(
        OnnxTensor.createTensor(environment, logits, longArrayOf(1, 1, vocabSize.toLong())),
    )
    private val inputs = HashMap<String, OnnxTensor>()
    private val outputs = hashMapOf(LOGITS to logitsTensor)
    private var written = 0

    private val lock = Any()
    private var isOpen = true
    private var isStopping = false

    init {
        while (mask.hasRemaining()) mask.put(1)
    }

    override fun step(ids: IntArray, position: Int): FloatBuffer {
        requireTokens(ids, position, written)
        synchronized(lock) {
            check(isOpen) { "the model is closed" }
            isStopping = false
            options.setTerminate(false)
        }
        written = position
        for (begin in ids.indices step PIECE) {
            if (synchronized(lock) { isStopping }) throw StepStopped()
            runPiece(ids, begin, minOf(begin + PIECE, ids.size))
        }
        return logits.duplicate()
    }

    override fun stop() = synchronized(lock) {
        if (isOpen) {
            isStopping = true
            options.setTerminate(true)
        }
    }

    override fun close() {
        synchronized(lock) {
            if (!isOpen) return
            isOpen = false
        }
        owned.close()
    }

    private fun runPiece(all: IntArray, begin: Int, end: Int) {
        val total = written + end - begin
        if (total > caches.slots) inWords("make room for $total positions") { reserve(total) }
        ids.show(end - begin)
        for (index in begin until end) ids.put(index - begin, all[index].toLong())
        mask.show(total)
        inWords("run the model over ${end - begin} tokens") {
            tensor(ids).use { idTensor ->
                tensor(mask).use { maskTensor ->
                    inputs[IDS] = idTensor
                    inputs[MASK] = maskTensor
                    session.run(inputs, emptySet(), outputs, options).close()
                }
            }
        }
        written = total
    }

    /** Each cache is read and written in one place. */
    private fun reserve(total: Int) {
        try {
            caches.reserve(total)
        } finally {
            // Some may have grown before memory ended, and those that they replace are closed.
            for ((name, cache) in caches.tensors()) {
                inputs[name] = cache
                outputs[name.replace(PAST, PRESENT)] = cache
            }
        }
    }

    private fun tensor(numbers: LongBuffer): OnnxTensor =
        OnnxTensor.createTensor(environment, numbers, longArrayOf(1, numbers.remaining().toLong()))

    companion object {
        /** Number of ids that are run at once, after which [stop] is seen at the latest. */
        const val PIECE: Int = PIECE_TOKENS

        private const val IDS = "input_ids"
        private const val MASK = "attention_mask"
        private const val LOGITS = "logits"
        private const val PAST = "past_key_values"
        private const val PRESENT = "present"
        private const val MOST_OF_ONE_AXIS = 16_384L
        private const val EXPORT_AGAIN = "Export the model again with --target onnx."

        /**
         * Load an artifact.
         *
         * @param model path of model.onnx, with its data file beside it
         * @param vocabSize number of token ids, as the manifest has it
         * @param maxContext largest number of positions, at most the manifest's
         * @param threads number of threads that compute; 0 leaves it to onnxruntime
         * @throws BundleError a file is missing or damaged, or the graph has another form
         * @throws org.llamaexport.core.EngineError onnxruntime cannot load it
         */
        fun open(model: File, vocabSize: Int, maxContext: Int, threads: Int = 0): OnnxStepModel =
            inWords("load ${model.name}") {
                // What it calls an error it throws too.
                val environment = OrtEnvironment.getEnvironment(ORT_LOGGING_LEVEL_FATAL)
                environment.setTelemetry(false)
                val owned = Closing()
                try {
                    val session = owned.add(sessionOf(environment, model, threads))
                    val signature = signatureOf(session, model.name, vocabSize)
                    OnnxStepModel(owned, environment, session, signature, maxContext)
                } catch (error: Throwable) {
                    owned.close()
                    throw error
                }
            }

        private fun sessionOf(environment: OrtEnvironment, model: File, threads: Int): OrtSession =
            OrtSession.SessionOptions().use { options ->
                options.setSessionLogLevel(ORT_LOGGING_LEVEL_FATAL)
                if (threads > 0) options.setIntraOpNumThreads(threads)
                environment.createSession(model.path, options)
            }

        private fun signatureOf(session: OrtSession, name: String, vocabSize: Int): Signature {
            val inputs = session.inputInfo
            val caches = inputs.keys.filter { it.startsWith("$PAST.") }
            val expected = setOf(IDS, MASK) + caches
            val present = caches.map { it.replace(PAST, PRESENT) }.toSet()
            if (caches.isEmpty() || inputs.keys != expected || session.outputNames != present + LOGITS) {
                val found = (inputs.keys + session.outputNames).sorted().joinToString(limit = 12)
                throw BundleError("$name: expected ids, mask, caches and logits, found $found", EXPORT_AGAIN)
            }
            val shapes = caches.map { floats(name, it, inputs.getValue(it)) }
            val (heads, headDim) = headsOf(name, shapes)
            val logits = floats(name, LOGITS, session.outputInfo.getValue(LOGITS))
            if (logits.size != 3 || logits[1] != 1L || logits[2] != vocabSize.toLong()) {
                throw BundleError(
                    "$name: expected one row of $vocabSize logits, found ${logits.joinToString(" x ")}",
                    "Export it again without --all-logits and --head-tokens.",
                )
            }
            return Signature(vocabSize, heads, headDim, caches)
        }

        private fun floats(name: String, value: String, info: NodeInfo): LongArray {
            val tensor = info.info as? TensorInfo
            if (tensor?.type != OnnxJavaType.FLOAT) {
                throw BundleError("$name: expected $value as float32, found ${info.info}", EXPORT_AGAIN)
            }
            return tensor.shape
        }

        /**
         * Return the number of heads and of columns that every cache `[1, K, slots, D]` has.
         *
         * @throws BundleError the caches have other shapes, or sizes that no model has
         */
        internal fun headsOf(name: String, shapes: List<LongArray>): Pair<Long, Long> {
            val heads = shapes.first().getOrElse(1) { 0 }
            val headDim = shapes.first().getOrElse(3) { 0 }
            if (shapes.any { it.size != 4 || it[1] != heads || it[3] != headDim }) {
                throw BundleError("$name: its caches differ in shape", EXPORT_AGAIN)
            }
            if (heads !in 1..MOST_OF_ONE_AXIS || headDim !in 1..MOST_OF_ONE_AXIS) {
                throw BundleError(
                    "$name: expected caches of 1 to $MOST_OF_ONE_AXIS heads and columns, " +
                        "found $heads and $headDim",
                    EXPORT_AGAIN,
                )
            }
            return heads to headDim
        }
    }
}
