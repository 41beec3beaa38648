package org.llamaexport.engine.executorch

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
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * A `.pte` in ExecuTorch, with its KV cache inside the program.
 *
 * The program takes any position, so a rewind is a smaller one. ExecuTorch cannot end a call early;
 * prompts are run in pieces, between which [stop] is seen. Make one with [open].
 */
class ExecutorchStepModel private constructor(
    private val module: Module,
    override val vocabSize: Int,
    override val maxContext: Int,
) : StepModel {
    private val ids = longs(PIECE)
    private val start = longs(1)
    private val startValue = EValue.from(Tensor.fromBlob(start, longArrayOf(1)))
    private val logits = directBuffer(vocabSize, Float.SIZE_BYTES).asFloatBuffer()
    private var written = 0
    private var isOpen = true

    @Volatile
    private var isStopping = false

    override fun step(ids: IntArray, position: Int): FloatBuffer {
        check(isOpen) { "the model is closed" }
        requireTokens(ids, position, written)
        isStopping = false
        written = position
        for (begin in ids.indices step PIECE) {
            if (isStopping) throw StepStopped()
            runPiece(ids, begin, minOf(begin + PIECE, ids.size))
        }
        return logits.duplicate()
    }

    override fun stop() {
        isStopping = true
    }

    override fun close() {
        if (isOpen) module.close()
        isOpen = false
    }

    private fun runPiece(all: IntArray, begin: Int, end: Int) {
        val size = end - begin
        // A tensor must take a buffer whole, so it gets a view that ends with the ids.
        ids.show(size)
        val piece = ids.slice()
        for (index in begin until end) piece.put(index - begin, all[index].toLong())
        start.put(0, written.toLong())
        inWords("run the model over $size tokens") {
            val tokens = EValue.from(Tensor.fromBlob(piece, longArrayOf(1, size.toLong())))
            val result = only("forward", module.forward(tokens, startValue)).toTensor()
            if (result.shape().lastOrNull() != vocabSize.toLong() || count(result) != vocabSize.toLong()) {
                throw BundleError(
                    "expected one row of $vocabSize logits, found ${result.shape().joinToString(" x ")}",
                    EXPORT_AGAIN,
                )
            }
            // The result is memory of the runtime's, which the next call writes over.
            logits.show(vocabSize)
            result.copyDataInto(logits)
            logits.show(vocabSize)
        }
        written += size
    }

    private fun count(tensor: Tensor): Long = tensor.shape().fold(1L) { product, size -> product * size }

    companion object {
        /** Number of ids that are run at once, after which [stop] is seen at the latest. */
        const val PIECE: Int = PIECE_TOKENS

        /**
         * Load a program.
         *
         * @param model path of model.pte
         * @param vocabSize number of token ids, as the manifest has it
         * @param maxContext largest number of positions, at most the manifest's
         * @param threads number of threads that compute; 0 leaves it to ExecuTorch: half the processors
         * @throws BundleError the file is damaged or not what the manifest says
         * @throws org.llamaexport.core.EngineError ExecuTorch cannot load it
         */
        fun open(model: File, vocabSize: Int, maxContext: Int, threads: Int = 0): ExecutorchStepModel =
            inWords("load ${model.name}") {
                // Mapped: the default mode reads the whole file into memory.
                val module = Module.load(model.path, Module.LOAD_MODE_MMAP, threads)
                try {
                    requireSame(module, "get_vocab_size", vocabSize.toLong())
                    val slots = number(module, "get_max_context_len")
                    if (slots < maxContext) {
                        throw BundleError(
                            "${model.name} has room for $slots positions, expected $maxContext",
                            "Get the whole bundle again: its files do not belong together.",
                        )
                    }
                    ExecutorchStepModel(module, vocabSize, maxContext)
                } catch (error: Throwable) {
                    module.close()
                    throw error
                }
            }

        private fun requireSame(module: Module, name: String, expected: Long) {
            val found = number(module, name)
            if (found != expected) {
                throw BundleError(
                    "the program's $name is $found, expected $expected",
                    "Get the whole bundle again: its files do not belong together.",
                )
            }
        }

        private fun number(module: Module, name: String): Long = only(name, module.execute(name)).toInt()

        private fun only(name: String, values: Array<EValue>): EValue {
            if (values.size == 1) return values[0]
            throw BundleError("the program's $name gives ${values.size} values, expected one", EXPORT_AGAIN)
        }

        private fun longs(size: Int): LongBuffer = directBuffer(size, Long.SIZE_BYTES).asLongBuffer()
    }
}
