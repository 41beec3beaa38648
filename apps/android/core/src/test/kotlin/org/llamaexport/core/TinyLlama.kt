package org.llamaexport.core

import java.nio.FloatBuffer
import kotlin.math.cos
import kotlin.math.exp
import kotlin.math.pow
import kotlin.math.sin
import kotlin.math.sqrt

/** Ways in which an engine goes wrong. */
enum class Fault {
    /** Tokens after the first call stand a position too far. */
    POSITION_OFF_BY_ONE,

    /** A call sees one row that it should have forgotten, or that nobody wrote. */
    STALE_ROW,

    /** Both heads' results change places. */
    SWAPPED_HEADS,

    /** Scores are multiplied by another scale. */
    WRONG_SCALE,

    /** Logits are NaN after some calls. */
    NOT_FINITE,
}

/**
 * One layer of attention with two heads, rotary positions and a cache, over random weights.
 *
 * @param fault what it does wrong; null: nothing
 * @param noise largest difference of a logit, as another processor's arithmetic has it
 */
class TinyLlama(private val fault: Fault? = null, private val noise: Float = 0f) : StepModel {
    override val vocabSize = 64
    override val maxContext = 128
    private val table = weights(1, vocabSize, SIZE)
    private val toQuery = weights(2, SIZE, SIZE)
    private val toKey = weights(3, SIZE, SIZE)
    private val toValue = weights(4, SIZE, SIZE)
    private val toHidden = weights(5, SIZE, SIZE)
    private val keys = Array(maxContext + 1) { DoubleArray(SIZE) }
    private val values = Array(maxContext + 1) { DoubleArray(SIZE) }
    private val logits = FloatBuffer.allocate(vocabSize)
    private var held = 0
    private var calls = 0

    override fun step(ids: IntArray, position: Int): FloatBuffer {
        requireTokens(ids, position, held)
        calls += 1
        val shift = if (fault == Fault.POSITION_OFF_BY_ONE && position > 0) 1 else 0
        for ((offset, id) in ids.withIndex()) {
            keys[position + offset] = rotated(product(toKey, table[id]), position + offset + shift)
            values[position + offset] = product(toValue, table[id])
        }
        held = position + ids.size
        val last = table[ids.last()]
        val query = rotated(product(toQuery, last), held - 1 + shift)
        val seen = attention(query, held + if (fault == Fault.STALE_ROW) 1 else 0)
        val hidden = product(toHidden, seen)
        for (id in 0 until vocabSize) {
            val sum = table[id].indices.sumOf { table[id][it] * (last[it] + 3 * hidden[it]) }
            val off = (mix(id, calls) ushr 8) / (1 shl 23).toFloat() - 1
            logits.put(id, (2.5 * sum).toFloat() + noise * off)
        }
        if (fault == Fault.NOT_FINITE && position > 70) logits.put(5, Float.NaN)
        return logits
    }

    override fun close() = Unit

    private fun attention(query: DoubleArray, rows: Int): DoubleArray {
        val result = DoubleArray(SIZE)
        val scale = (if (fault == Fault.WRONG_SCALE) 1.5 else 1.0) / sqrt(HEAD.toDouble())
        for (head in 0..1) {
            val from = head * HEAD
            val weights = DoubleArray(rows) { row ->
                exp(scale * (from until from + HEAD).sumOf { query[it] * keys[row][it] })
            }
            val into = if (fault == Fault.SWAPPED_HEADS) HEAD - from else from
            val total = weights.sum()
            for (row in 0 until rows) {
                for (at in 0 until HEAD) result[into + at] += weights[row] / total * values[row][from + at]
            }
        }
        return result
    }

    private fun rotated(vector: DoubleArray, position: Int): DoubleArray {
        val result = vector.copyOf()
        for (head in 0..1) {
            for (pair in 0 until HEAD / 2) {
                val angle = position * 100.0.pow(-2.0 * pair / HEAD)
                val one = head * HEAD + pair
                val other = one + HEAD / 2
                result[one] = vector[one] * cos(angle) - vector[other] * sin(angle)
                result[other] = vector[other] * cos(angle) + vector[one] * sin(angle)
            }
        }
        return result
    }

    private fun product(matrix: Array<DoubleArray>, vector: DoubleArray): DoubleArray =
        DoubleArray(matrix.size) { row -> vector.indices.sumOf { matrix[row][it] * vector[it] } }

    private fun weights(number: Int, rows: Int, columns: Int) = Array(rows) { row ->
        DoubleArray(columns) { (mix(mix(number, row), it) ushr 8) / (1 shl 23).toDouble() - 1 }
    }

    private companion object {
        const val HEAD = 8
        const val SIZE = 2 * HEAD
    }
}
