package org.llamaexport.core

import java.security.SecureRandom

/**
 * How the next token is drawn.
 *
 * @property temperature divisor of the logits; 0 takes the likeliest token
 * @property topP probability that the likeliest tokens, from which one is drawn, have together
 * @property topK number of the likeliest tokens from which one is drawn; 0: all
 * @property seed seed of the random numbers, the same for the same text; null: a fresh one
 * @property minP smallest probability of a token that may be drawn, as a share of the likeliest's
 * @property repetitionPenalty divisor of the logits of tokens that the text already holds (factor,
 *     where they are negative); 1 changes nothing
 * @throws BadInput a value is out of its range; all such values are named
 */
data class Sampling(
    val temperature: Double = 0.7,
    val topP: Double = 0.95,
    val topK: Int = 0,
    val seed: Long? = null,
    val minP: Double = 0.0,
    val repetitionPenalty: Double = 1.0,
) {
    init {
        val faults = listOf(
            Triple("temperature >= 0", temperature, temperature >= 0 && temperature < INFINITE),
            Triple("0 < top-p <= 1", topP, topP > 0 && topP <= 1),
            Triple("a whole top-k >= 0", topK, topK >= 0),
            Triple("a whole seed >= 0", seed, seed == null || seed >= 0),
            Triple("0 <= min-p <= 1", minP, minP in 0.0..1.0),
            Triple(
                "repetition penalty > 0",
                repetitionPenalty,
                repetitionPenalty > 0 && repetitionPenalty < INFINITE,
            ),
        ).filterNot { (_, _, sound) -> sound }.map { (name, value, _) -> "$name, found ${shown(value)}" }
        if (faults.isNotEmpty()) {
            val message = "expected " + faults.joinToString("; expected ")
            throw BadInput(message, "Change the settings.", kind = ErrorKind.SETTING)
        }
    }

    /** Return the same sampling with a seed: its own, or a fresh one of 32 bits where it has none. */
    fun withSeed(): Sampling =
        if (seed != null) this else copy(seed = SecureRandom().nextInt().toLong() and 0xFFFFFFFFL)

    private companion object {
        const val INFINITE = Double.POSITIVE_INFINITY

        /** As Python writes it, so that both say the same of the same settings. */
        fun shown(value: Any?): String = when (value) {
            Double.NaN -> "nan"
            Double.POSITIVE_INFINITY -> "inf"
            Double.NEGATIVE_INFINITY -> "-inf"
            else -> value.toString()
        }
    }
}

/**
 * Random numbers of a seed, the same on every phone and in every version of the app: SplitMix64.
 *
 * Neighbouring seeds give unrelated numbers, so a conversation may count its seed up.
 */
class SeededRandom(seed: Long) {
    private var state = seed

    /** Return the next number from 0 to 1, without 1. */
    fun next(): Double {
        state += 0x9E3779B97F4A7C15uL.toLong()
        var mixed = (state xor (state ushr 30)) * 0xBF58476D1CE4E5B9uL.toLong()
        mixed = (mixed xor (mixed ushr 27)) * 0x94D049BB133111EBuL.toLong()
        return ((mixed xor (mixed ushr 31)) ushr 11) * (1.0 / (1L shl 53))
    }
}
