package org.llamaexport.engine.executorch

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import org.llamaexport.core.StepModel
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * What a double of `Module` computes: a model's logits, given out as the runtime gives them.
 *
 * Its result is one piece of memory for every call, as ExecuTorch's is.
 */
class ModelProgram(
    private val model: StepModel,
    private val slots: Int = model.maxContext,
) : Module.Program {
    private val result: FloatBuffer = ByteBuffer.allocateDirect(model.vocabSize * Float.SIZE_BYTES)
        .order(ByteOrder.nativeOrder()).asFloatBuffer()
    var isClosed = false
        private set

    /** Sizes of the pieces that were run. */
    val pieces = ArrayList<Int>()

    /** What happens before a piece is run. */
    var before: () -> Unit = {}

    override fun execute(method: String, vararg inputs: EValue): Array<EValue> = when (method) {
        "get_vocab_size" -> arrayOf(EValue.from(model.vocabSize.toLong()))
        "get_max_context_len" -> arrayOf(EValue.from(slots.toLong()))
        "forward" -> arrayOf(EValue.from(forward(inputs[0].toTensor(), inputs[1].toTensor())))
        else -> throw AssertionError("no method $method")
    }

    override fun close() {
        isClosed = true
        model.close()
    }

    /** Write over the last result, as the next call does. */
    fun spoil() {
        for (index in 0 until result.capacity()) result.put(index, Float.NaN)
    }

    private fun forward(tokens: Tensor, start: Tensor): Tensor {
        before()
        spoil()
        check(tokens.shape().size == 2 && start.shape().contentEquals(longArrayOf(1))) { "other inputs" }
        val ids = IntArray(tokens.longs().capacity()) { tokens.longs().get(it).toInt() }
        pieces.add(ids.size)
        val logits = model.step(ids, start.longs().get(0).toInt())
        for (index in 0 until model.vocabSize) result.put(index, logits.get(index))
        return Tensor.fromBlob(result, longArrayOf(1, model.vocabSize.toLong()))
    }
}
