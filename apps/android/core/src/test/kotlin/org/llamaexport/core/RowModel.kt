package org.llamaexport.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/** Return 32 bits that depend on all bits of two numbers, as tools/generation_vectors.py does. */
fun mix(one: Int, other: Int): Int {
    var mixed = one xor (other * 0x9E3779B1u.toInt())
    mixed = (mixed xor (mixed ushr 16)) * 0x85EBCA6Bu.toInt()
    mixed = (mixed xor (mixed ushr 13)) * 0xC2B2AE35u.toInt()
    return mixed xor (mixed ushr 16)
}

/**
 * A model that is arithmetic: each row of its cache is made of a token and its position, and its
 * logits of all rows, so that a wrong position or a row left over changes what it writes.
 *
 * @param steps per unit of a logit; fewer make drawing flatter
 */
open class RowModel(
    override val vocabSize: Int = 64,
    override val maxContext: Int = 64,
    private val steps: Float = 256f,
) : StepModel {
    private val buffer: FloatBuffer =
        ByteBuffer.allocateDirect(4 * vocabSize).order(ByteOrder.nativeOrder()).asFloatBuffer()

    /** Rows as they are, those that were forgotten too. */
    val rows = IntArray(maxContext)

    /** Number of ids of each call. */
    val calls = ArrayList<Int>()
    var isClosed = false
        private set
    private var held = 0

    override fun step(ids: IntArray, position: Int): FloatBuffer {
        requireTokens(ids, position, held)
        calls += ids.size
        for ((offset, id) in ids.withIndex()) rows[position + offset] = mix(id, position + offset)
        held = position + ids.size
        return logits(held)
    }

    /** Fill the buffer, which the next call fills anew. */
    protected open fun logits(held: Int): FloatBuffer {
        var state = 0
        for (at in 0 until held) state = mix(state, rows[at])
        for (id in 0 until vocabSize) buffer.put(id, ((mix(state, id) ushr 19) - 4096) / steps)
        return buffer
    }

    override fun close() {
        isClosed = true
    }
}
