package org.llamaexport.core

import kotlin.math.exp
import kotlin.math.max

// Below it no token but the likeliest has a share in float32: drawing is taking the likeliest.
private const val LEAST_TEMPERATURE = 1e-6
// A positive float32 without these bits: its exponent and three bits of its fraction.
private const val BUCKET_SHIFT = 20
private const val BUCKETS = (0x3F80_0000 ushr BUCKET_SHIFT) + 1

/**
 * Draws the next token from logits: temperature, top-k, top-p and min-p, in that order, which is
 * that of Hugging Face's `generate`. The penalty comes before them: [penalise].
 *
 * It keeps buffers of its own and belongs to one thread.
 *
 * @param vocabSize number V of logits
 */
class Sampler(private val vocabSize: Int) {
    private val shares = FloatArray(vocabSize)
    private val ids = IntArray(vocabSize)
    private val keys = LongArray(vocabSize)
    private val counts = IntArray(BUCKETS)
    private val masses = DoubleArray(BUCKETS)
    private var kept = 0

    /**
     * Draw a token id.
     *
     * @param logits logits `[V]` with the repetition penalty already applied; -infinity where there is
     *     none
     * @param u random number from 0 to 1, without 1; not looked at where the temperature is 0
     */
    fun draw(logits: FloatArray, sampling: Sampling, u: Double): Int {
        require(logits.size == vocabSize) { "expected $vocabSize logits, found ${logits.size}" }
        val likeliest = likeliest(logits)
        if (sampling.temperature == 0.0) return likeliest
        require(u >= 0.0 && u < 1.0) { "expected a random number from 0 to 1, found $u" }
        val all = fillShares(logits, logits[likeliest], sampling.temperature)
        choose(sampling, all)
        return drawKept(sampling.minP.toFloat(), u)
    }

    /** Fill each token's share, its ratio to the likeliest's probability, and return their sum. */
    private fun fillShares(logits: FloatArray, largest: Float, temperature: Double): Double {
        val scale = max(temperature, LEAST_TEMPERATURE).toFloat()
        var sum = 0.0
        for (id in 0 until vocabSize) {
            val share = exp(((logits[id] - largest) / scale).toDouble()).toFloat()
            shares[id] = share
            sum += share
        }
        return sum
    }

    /** Fill [ids] with those that top-k and top-p leave; likeliest first where one of them is set. */
    private fun choose(sampling: Sampling, all: Double) {
        val hasTopK = sampling.topK in 1 until vocabSize
        when {
            hasTopK -> rank(sampling.topK, 0.0)
            sampling.topP < 1 -> rank(0, sampling.topP * all)
            else -> {
                for (id in 0 until vocabSize) ids[id] = id
                kept = vocabSize
            }
        }
        if (hasTopK) kept = minOf(kept, sampling.topK)
        if (sampling.topP < 1) {
            val wanted = sampling.topP * if (hasTopK) sumOfKept() else all
            kept = crossing(wanted)
        }
    }

    private fun sumOfKept(): Double {
        var sum = 0.0
        for (at in 0 until kept) sum += shares[ids[at]]
        return sum
    }

    /** Return how many of the kept ids reach a sum; the one that crosses the line belongs to them. */
    private fun crossing(wanted: Double): Int {
        var sum = 0.0
        for (at in 0 until kept) {
            sum += shares[ids[at]]
            if (sum >= wanted) return at + 1
        }
        return kept
    }

    /**
     * Fill [ids] with at least so many of the likeliest, or with those that have at least a mass
     * together, likeliest first; of equal ones the lower id first.
     *
     * Sorting all of 128,256 would take ten times as long as finding out by their exponents which
     * need it.
     */
    private fun rank(count: Int, mass: Double) {
        counts.fill(0)
        masses.fill(0.0)
        for (share in shares) {
            val bucket = share.toRawBits() ushr BUCKET_SHIFT
            counts[bucket] += 1
            masses[bucket] += share.toDouble()
        }
        var lowest = BUCKETS
        var counted = 0
        var weighed = 0.0
        while (lowest > 0 && (counted < count || weighed < mass)) {
            lowest -= 1
            counted += counts[lowest]
            weighed += masses[lowest]
        }
        val least = lowest shl BUCKET_SHIFT
        kept = 0
        for (id in 0 until vocabSize) {
            val bits = shares[id].toRawBits()
            // Ascending keys are descending shares, and ascending ids where those are equal.
            if (bits >= least) keys[kept++] = ((Int.MAX_VALUE - bits).toLong() shl 32) or id.toLong()
        }
        keys.sort(0, kept)
        for (at in 0 until kept) ids[at] = keys[at].toInt()
    }

    private fun drawKept(minP: Float, u: Double): Int {
        var sum = 0.0
        for (at in 0 until kept) {
            val share = shares[ids[at]]
            if (share >= minP) sum += share
        }
        val wanted = u * sum
        var passed = 0.0
        var last = ids[0]
        for (at in 0 until kept) {
            val share = shares[ids[at]]
            if (share < minP || share == 0f) continue
            passed += share
            last = ids[at]
            if (passed > wanted) return last
        }
        // A product that is rounded up to the sum draws the last one that has a share.
        return last
    }
}

/** Return the id of the largest of logits `[V]`; of equal ones the lowest. */
fun likeliest(logits: FloatArray): Int {
    var found = 0
    for (id in 1 until logits.size) if (logits[id] > logits[found]) found = id
    return found
}

/**
 * Apply CTRL's repetition penalty to logits `[V]`, in place.
 *
 * @param ids tokens that the text already holds, each given once; those outside of V are passed over
 * @param penalty divisor of positive logits, and factor of negative ones
 */
fun penalise(logits: FloatArray, ids: Collection<Int>, penalty: Double) {
    if (penalty == 1.0) return
    val factor = penalty.toFloat()
    for (id in ids) {
        if (id >= logits.size) continue
        val found = logits[id]
        logits[id] = if (found > 0) found / factor else found * factor
    }
}
