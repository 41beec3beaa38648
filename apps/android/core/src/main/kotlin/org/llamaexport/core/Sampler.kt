package org.llamaexport.core

import kotlin.math.max

// Below it no token but the likeliest has a share in float32: drawing is taking the likeliest.
private const val LEAST_TEMPERATURE = 1e-6
// How many logits are treated side by side: the compiler makes vectors of loops as plain as these.
private const val LANES = 256
// Wider than the rounding of two shares that lie on the two sides of a bound.
private const val SLACK = 1e-4f
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
    private val lanes = FloatArray(LANES)
    private var kept = 0

    /**
     * Draw a token id.
     *
     * @param logits logits `[V]` with the repetition penalty already applied; -infinity where there is
     *     none
     * @param u random number from 0 to 1, without 1; not looked at where the temperature is 0
     * @throws EngineError a logit is NaN or infinite, or none is finite
     */
    fun draw(logits: FloatArray, sampling: Sampling, u: Double): Int {
        require(logits.size == vocabSize) { "expected $vocabSize logits, found ${logits.size}" }
        val likeliest = soundLikeliest(logits)
        if (sampling.temperature == 0.0) return likeliest
        require(u >= 0.0 && u < 1.0) { "expected a random number from 0 to 1, found $u" }
        val all = fillShares(logits, logits[likeliest], sampling.temperature)
        choose(logits, sampling, all)
        return drawKept(sampling.minP.toFloat(), u)
    }

    /** Fill each token's share, its ratio to the likeliest's probability, and return their sum. */
    private fun fillShares(logits: FloatArray, largest: Float, temperature: Double): Double {
        // Not 0, which would make NaN of the minus infinity of a token that there is not.
        val scale = max((1 / (max(temperature, LEAST_TEMPERATURE) * ROOT)).toFloat(), Float.MIN_VALUE)
        fillShares(logits, shares, largest, scale)
        lanes.fill(0f)
        val rest = vocabSize - vocabSize % LANES
        for (from in 0 until rest step LANES) addLanes(shares, from, lanes)
        var sum = 0.0
        for (lane in lanes) sum += lane
        for (id in rest until vocabSize) sum += shares[id]
        return sum
    }

    /** Fill [ids] with those that top-k and top-p leave; likeliest first where one of them is set. */
    private fun choose(logits: FloatArray, sampling: Sampling, all: Double) {
        val hasTopK = sampling.topK in 1 until vocabSize
        when {
            hasTopK -> {
                rank(logits, shareOfBucket(sampling.topK))
                kept = sampling.topK
            }
            // Those below this have less together than top-p leaves out.
            sampling.topP < 1 -> rank(logits, ((1 - sampling.topP) * all / vocabSize).toFloat())
            else -> {
                for (id in 0 until vocabSize) ids[id] = id
                kept = vocabSize
            }
        }
        if (sampling.topP < 1) kept = crossing(sampling.topP * if (hasTopK) sumOfKept() else all)
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
     * Return a share that at least so many tokens have, and not many more.
     *
     * Counting by exponents is enough, and sorting all of 128,256 takes ten times as long.
     */
    private fun shareOfBucket(count: Int): Float {
        counts.fill(0)
        for (share in shares) counts[share.toRawBits() ushr BUCKET_SHIFT] += 1
        var bucket = BUCKETS
        var counted = 0
        while (bucket > 0 && counted < count) counted += counts[--bucket]
        return Float.fromBits(bucket shl BUCKET_SHIFT)
    }

    /** Fill [ids] with those of at least a share, likeliest first; of equal ones the lower id first. */
    private fun rank(logits: FloatArray, least: Float) {
        val bound = least * (1 - SLACK)
        kept = 0
        for (id in 0 until vocabSize) {
            if (shares[id] < bound) continue
            // Ascending keys are descending logits, and ascending ids where those are equal.
            keys[kept++] = (descending(logits[id]).toLong() shl 32) or id.toLong()
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

/** Return the id of the largest logit. @throws EngineError nothing can be drawn from the logits */
private fun soundLikeliest(logits: FloatArray): Int {
    var found = 0
    var largest = Float.NEGATIVE_INFINITY
    var wrong = 0
    for (id in logits.indices) {
        val logit = logits[id]
        // One comparison for each of so many: it finds the larger ones, and those that are none.
        if (!(logit <= largest)) {
            if (logit < Float.POSITIVE_INFINITY) {
                largest = logit
                found = id
            } else {
                wrong += 1
            }
        }
    }
    if (wrong > 0 || largest == Float.NEGATIVE_INFINITY) {
        throw EngineError(
            "the logits are not finite numbers: $wrong of ${logits.size} are NaN or infinite" +
                if (wrong == 0) ", and none is finite" else "",
            "The bundle is damaged, or this phone computes it wrongly: verify it on this phone.",
        )
    }
    return found
}

/** Return a number that is the smaller, the larger a finite float32 is. */
private fun descending(value: Float): Int {
    // Zero has one sign then.
    val bits = (value + 0f).toRawBits()
    return if (bits < 0) bits xor Int.MIN_VALUE else bits.inv()
}

// exp(x) is exp(x / 64) to the 64th, and near 0 a short series is enough. Each loop over it is of
// multiplications alone, for many logits at a time: an exponential of each takes twenty times as long.
private const val ROOT = 64
private const val C2 = 1f / 2
private const val C3 = 1f / 6
private const val C4 = 1f / 24
private const val C5 = 1f / 120
private const val C6 = 1f / 720
private const val C7 = 1f / 5040

// exp(-84) is still an ordinary float32; smaller ones are slow, and nothing is drawn with them.
internal const val LEAST_ROOT = -84f / ROOT

// Taken away from every share, so that a token without one has none.
private val NO_SHARE = powerOfRoot(LEAST_ROOT)

/** Fill the shares of logits `[V]`; [scale] is a 64th of what the temperature makes of them. */
private fun fillShares(logits: FloatArray, shares: FloatArray, largest: Float, scale: Float) {
    for (id in shares.indices) {
        val root = max((logits[id] - largest) * scale, LEAST_ROOT)
        shares[id] = max(powerOfRoot(root) - NO_SHARE, 0f)
    }
}

private fun addLanes(shares: FloatArray, from: Int, lanes: FloatArray) {
    for (lane in 0 until LANES) lanes[lane] += shares[from + lane]
}

/**
 * Return exp(64 y) for [LEAST_ROOT] <= y <= 0; what it adds up to is right to some 1e-6.
 *
 * @param y a 64th of the exponent
 */
internal fun powerOfRoot(y: Float): Float {
    val root = 1f + y * (1f + y * (C2 + y * (C3 + y * (C4 + y * (C5 + y * (C6 + y * C7))))))
    val power2 = root * root
    val power4 = power2 * power2
    val power8 = power4 * power4
    val power16 = power8 * power8
    val power32 = power16 * power16
    return power32 * power32
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
