package org.llamaexport.core

import java.nio.Buffer
import java.nio.FloatBuffer

/** Why a text ended, in Python's words. */
enum class StopReason(val words: String) {
    STOP_TOKEN("stop token"),
    STOP_TEXT("stop text"),
    LENGTH("length"),
    CONTEXT_FULL("context full"),

    /** It has not ended, or somebody stopped it. */
    INTERRUPTED("interrupted"),
}

/**
 * The figures of a generation.
 *
 * @property promptTokens length of the whole prompt
 * @property reusedTokens number of the prompt's tokens that the cache already held
 * @property newTokens number of tokens written, without the stop token
 * @property timeToFirstTokenS seconds until the first token was chosen; 0 before it
 * @property decodeS seconds from the first token to the last
 * @property stopReason why it ended
 * @property seed seed of the random numbers, with which the same text can be had again
 * @property contextTokens number of positions that the prompt and the new tokens take
 * @property maxContext number of positions that there are
 */
data class GenerationStats(
    val promptTokens: Int,
    val reusedTokens: Int,
    val newTokens: Int,
    val timeToFirstTokenS: Double,
    val decodeS: Double,
    val stopReason: StopReason,
    val seed: Long,
    val contextTokens: Int,
    val maxContext: Int,
) {
    /** Speed of the tokens after the first; 0 where there is none. */
    val decodeTokensPerS: Double
        get() = if (newTokens > 1 && decodeS > 0) (newTokens - 1) / decodeS else 0.0
}

/**
 * Token ids of one text, one after the other; it ends by itself, or when it is stopped.
 *
 * It belongs to the model's thread, and no one else may use the cache until it has ended.
 *
 * @param cache cache that holds the beginning of the prompt and nothing else
 * @param prompt token ids `[n]` of the whole prompt, at least a token longer than what the cache holds
 * @param sampling how tokens are drawn
 * @param stopIds ids that end the text and are not part of it; the repetition penalty spares them:
 *     every earlier turn of a chat holds one, and answers would never end
 * @param maxTokens largest number of new tokens
 * @param drawing what draws them; its V is at most the cache's
 * @param clock nanoseconds, for differences only
 */
class Generation internal constructor(
    private val cache: KeptCache,
    private val prompt: IntArray,
    sampling: Sampling,
    private val stopIds: Set<Int>,
    private val maxTokens: Int,
    private val drawing: Drawing,
    private val clock: () -> Long,
) {
    private val sampling = sampling.withSeed()
    private val random = SeededRandom(this.sampling.seed ?: 0)
    private val seen = LinkedHashSet<Int>()
    private val reused = cache.position
    private var last = -1
    private var count = 0
    private var hasBegun = false
    private var hasDrawn = false
    private var begunAt = 0L
    private var firstAt = 0L
    private var lastAt = 0L
    private var hasEnded = false
    private var reason = StopReason.INTERRUPTED

    init {
        if (this.sampling.repetitionPenalty != 1.0) prompt.filterNotTo(seen) { it in stopIds }
    }

    /** The figures so far. */
    val stats: GenerationStats
        get() = GenerationStats(
            promptTokens = prompt.size,
            reusedTokens = reused,
            newTokens = count,
            timeToFirstTokenS = if (hasDrawn) (firstAt - begunAt) / NANOS else 0.0,
            decodeS = (lastAt - firstAt) / NANOS,
            stopReason = reason,
            seed = sampling.seed ?: 0,
            contextTokens = prompt.size + count,
            maxContext = cache.maxContext,
        )

    /**
     * Draw the next token.
     *
     * @param onProgress as [KeptCache.read] calls it, while the prompt is read
     * @return its id; null: the text has ended
     * @throws EngineError the runtime failed, or computes no numbers
     */
    fun next(stop: Stop, onProgress: (Int, Int) -> Unit = { _, _ -> }): Int? {
        if (hasEnded || reason != StopReason.INTERRUPTED) return end()
        val unread = if (hasBegun) intArrayOf(last) else prompt.copyOfRange(reused, prompt.size)
        if (!hasBegun) begunAt = clock()
        hasBegun = true
        hasEnded = true // until it is known that nothing failed
        val held = cache.position
        val logits = cache.read(unread, stop, onProgress) ?: return null
        val token = try {
            drawing.draw(logits, sampling, seen, random)
        } catch (error: EngineError) {
            // What was computed wrongly is not used again: the next text reads it anew.
            cache.rewind(held)
            throw error
        }
        note(clock(), isNew = token !in stopIds)
        if (token in stopIds) {
            reason = StopReason.STOP_TOKEN
            return null
        }
        hasEnded = false
        last = token
        count += 1
        if (sampling.repetitionPenalty != 1.0) seen.add(token)
        if (cache.position >= cache.maxContext) {
            reason = StopReason.CONTEXT_FULL
        } else if (count == maxTokens) {
            reason = StopReason.LENGTH
        }
        return token
    }

    /** End it here; what was written stays in the cache. */
    fun close() {
        hasEnded = true
    }

    private fun note(now: Long, isNew: Boolean) {
        if (!hasDrawn) firstAt = now
        if (!hasDrawn || isNew) lastAt = now
        hasDrawn = true
    }

    private fun end(): Int? {
        hasEnded = true
        return null
    }

    private companion object {
        const val NANOS = 1e9
    }
}

/**
 * Draws tokens from a model's logits, which it copies: the model's buffer is not its own.
 *
 * @param vocabSize number of ids to draw from, the first ones; a model's table may be padded beyond
 *     its tokenizer
 * @param headTokens ids of the tokens that the logits stand for; empty: each stands for its own index
 */
internal class Drawing(private val vocabSize: Int, private val headTokens: IntArray) {
    private val known = FloatArray(vocabSize)
    private val read = if (headTokens.isEmpty()) known else FloatArray(headTokens.size)
    private val sampler = Sampler(vocabSize)

    fun draw(logits: FloatBuffer, sampling: Sampling, seen: Set<Int>, random: SeededRandom): Int {
        copyLogits(logits, read)
        if (headTokens.isNotEmpty()) spread()
        penalise(known, seen, sampling.repetitionPenalty)
        val u = if (sampling.temperature == 0.0) 0.0 else random.next()
        return sampler.draw(known, sampling, u)
    }

    /** A token that a pruned head has no row for has the logit -infinity: it is never drawn. */
    private fun spread() {
        known.fill(Float.NEGATIVE_INFINITY)
        for ((place, id) in headTokens.withIndex()) if (id < vocabSize) known[id] = read[place]
    }
}

/** Copy a model's logits, from index 0 on, into an array that says how many there are. */
internal fun copyLogits(logits: FloatBuffer, into: FloatArray) {
    val view = logits.duplicate()
    // Android 28's FloatBuffer has no method of its own that does this.
    (view as Buffer).position(0)
    view.get(into)
}
