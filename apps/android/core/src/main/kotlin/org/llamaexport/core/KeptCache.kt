package org.llamaexport.core

import java.nio.FloatBuffer

/**
 * Number of tokens that are read at once.
 *
 * A prompt can be stopped between two pieces, and attention's memory grows with their length.
 */
const val PIECE_TOKENS: Int = 128

/** A wish to stop, made on any thread; what runs looks at it before each call of the model. */
class Stop {
    /** Whether somebody wishes so. */
    @Volatile
    var isRequested: Boolean = false
        private set

    @Volatile
    private var running: StepModel? = null

    /** Stop as soon as it can be done, for good: the next text takes a `Stop` of its own. */
    fun request() {
        isRequested = true
        running?.stop()
    }

    /** Make a step that [request] can end early; null where it did, or came before. */
    internal fun step(model: StepModel, ids: IntArray, position: Int): FloatBuffer? {
        running = model
        try {
            while (!isRequested) {
                try {
                    return model.step(ids, position)
                } catch (_: StepStopped) {
                    // Where nobody asked for it here, it was the stop of a text before, come late.
                }
            }
            return null
        } finally {
            running = null
        }
    }
}

/**
 * A model with the record of the tokens in its KV cache, so that nothing is read twice.
 *
 * A text that begins like what the cache holds needs only its rest to be read: the next turn of a
 * chat its new tokens, an edited one what follows the edit. Whatever interrupts a call, the record
 * stays true: it names a token only after the model has it, and every call says where it begins. It
 * belongs to the model's thread.
 *
 * @param model model with an empty cache
 * @property maxContext most positions to use, out of the model's own
 * @throws BadInput there are not so many positions, or none
 */
class KeptCache(
    private val model: StepModel,
    val maxContext: Int = model.maxContext,
) : AutoCloseable {
    private var held = IntArray(FIRST_TOKENS)

    init {
        if (maxContext !in 1..model.maxContext) {
            throw BadInput(
                "the context: expected 1 to ${model.maxContext}, the positions of this bundle; " +
                    "found $maxContext",
                "Choose a context that the model has.",
            )
        }
    }

    /** Number V of logits. */
    val vocabSize: Int get() = model.vocabSize

    /** Number of tokens in the cache. */
    var position: Int = 0
        private set

    /** The tokens in the cache, as an array of the caller's own. */
    val tokens: IntArray get() = held.copyOf(position)

    /**
     * Count the tokens at the beginning of a text that need no reading.
     *
     * The last token always needs it, because its logits are wanted.
     *
     * @param ids token ids `[n]` of the whole text
     */
    fun sharedLength(ids: IntArray): Int {
        val most = minOf(ids.size - 1, position)
        for (index in 0 until most) if (ids[index] != held[index]) return index
        return maxOf(most, 0)
    }

    /** Forget what the ids `[n]` of a text do not begin with, and return how many of them remain. */
    fun keepPrefixOf(ids: IntArray): Int {
        position = sharedLength(ids)
        return position
    }

    /**
     * Forget every token from a position on; 0 forgets all.
     *
     * @throws PromptError the position is negative, or after the last token
     */
    fun rewind(position: Int) {
        if (position < 0 || position > this.position) {
            throw PromptError(
                "cannot rewind to position $position: there are ${this.position} tokens",
                "Give a position from 0 to ${this.position}.",
            )
        }
        this.position = position
    }

    /**
     * Append tokens, piece by piece, and return the logits `[V]` after the last of them.
     *
     * @param ids token ids `[n]` to append, n at least 1
     * @param stop wish to stop, looked at before each piece; an engine that can ends its call early
     * @param onProgress called before each piece of a long text, with the number of tokens read so
     *     far, and of all of them
     * @return logits, valid until the next call; null where it was stopped, with what was read by
     *     then in the cache
     * @throws PromptError there are no tokens, one is outside the vocabulary, or they do not fit
     * @throws EngineError the runtime failed
     */
    fun read(ids: IntArray, stop: Stop = Stop(), onProgress: (Int, Int) -> Unit = { _, _ -> }): FloatBuffer? {
        val room = maxContext - position
        if (ids.size > room) {
            throw PromptError(
                "${ids.size} more tokens do not fit: there is room for $room",
                "Shorten the text, or choose a larger context.",
                kind = ErrorKind.CONTEXT_FULL,
            )
        }
        var logits: FloatBuffer? = null
        var start = 0
        do {
            if (ids.size > PIECE_TOKENS) onProgress(start, ids.size)
            val piece = ids.copyOfRange(start, minOf(start + PIECE_TOKENS, ids.size))
            logits = stop.step(model, piece, position) ?: return null
            remember(piece)
            start += PIECE_TOKENS
        } while (start < ids.size)
        return logits
    }

    /** Let go of the model and its memory. */
    override fun close() {
        position = 0
        model.close()
    }

    private fun remember(piece: IntArray) {
        val end = position + piece.size
        if (end > held.size) held = held.copyOf(minOf(maxOf(end, 2 * held.size), maxContext))
        piece.copyInto(held, position)
        position = end
    }

    private companion object {
        const val FIRST_TOKENS = 512
    }
}
