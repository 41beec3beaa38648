package org.llamaexport.core

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
        choose(sampling, all)
        return drawKept(sampling.minP.toFloat(), u)
    }

    /** Fill each token's share, its ratio to the likeliest's probability, and return their sum. */
    private fun fillShares(logits: FloatArray, largest: Float, temperature: Double): Double {
        val scale = max(temperature, LEAST_TEMPERATURE).toFloat()
        var sum = 0.0
        for (id in 0 until vocabSize) {
            val share = expOfNegative((logits[id] - largest) / scale)
            shares[id] = share
            sum += share
        }
        return sum
    }

    /** Fill [ids] with those that top-k and top-p leave; likeliest first where one of them is set. */
    private fun choose(sampling: Sampling, all: Double) {
        val hasTopK = sampling.topK in 1 until vocabSize
        when {
            hasTopK -> {
                rank(shareOfBucket(sampling.topK))
                kept = sampling.topK
            }
            // Those below this have less together than top-p leaves out.
            sampling.topP < 1 -> rank(((1 - sampling.topP) * all / vocabSize).toFloat())
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
    private fun rank(least: Float) {
        kept = 0
        for (id in 0 until vocabSize) {
            val share = shares[id]
            if (share < least) continue
            // Ascending keys are descending shares, and ascending ids where those are equal.
            keys[kept++] = ((Int.MAX_VALUE - share.toRawBits()).toLong() shl 32) or id.toLong()
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

private const val LOG2_OF_E = 1.4426950408889634
private const val LN_OF_2 = 0.6931471805599453

// One over the factorials; dividing would take four times as long.
private const val C2 = 1.0 / 2
private const val C3 = 1.0 / 6
private const val C4 = 1.0 / 24
private const val C5 = 1.0 / 120
private const val C6 = 1.0 / 720
private const val C7 = 1.0 / 5040

// float32 has no numbers below exp of it.
private const val LEAST_EXPONENT = -104f

/**
 * Return the exponential of a number that is not positive, to float32's last bit.
 *
 * The platform's takes three times as long, and it is taken of each logit of each token.
 */
internal fun expOfNegative(x: Float): Float {
    if (!(x > LEAST_EXPONENT)) return 0f
    val doublings = x * LOG2_OF_E
    val whole = (doublings - 0.5).toInt()
    val t = (doublings - whole) * LN_OF_2
    val series = 1 + t * (1 + t * (C2 + t * (C3 + t * (C4 + t * (C5 + t * (C6 + t * C7))))))
    return (series * Double.fromBits((whole + 1023L) shl 52)).toFloat()
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
