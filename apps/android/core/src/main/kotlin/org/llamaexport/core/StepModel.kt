package org.llamaexport.core

import java.nio.FloatBuffer

/**
 * A loaded artifact with one KV cache, whatever runtime is behind it.
 *
 * It belongs to one thread, and its buffers to the engine. V is [vocabSize].
 */
interface StepModel : AutoCloseable {
    /** Number of logits, and of token ids that may be read. */
    val vocabSize: Int

    /** Largest number of positions that the cache can hold. */
    val maxContext: Int

    /**
     * Read tokens from a position on and return the logits `[V]` after the last of them.
     *
     * What the cache held from [position] on is forgotten, so rewinding is free.
     *
     * @param ids token ids `[n]`, n at least 1
     * @param position number of positions to keep, at most the number that was written
     * @return logits from index 0 to V, valid until the next call
     * @throws PromptError there are no ids, one is outside the vocabulary, or they do not fit
     * @throws EngineError the runtime failed
     * @throws StepStopped [stop] was called meanwhile; position and cache are as after a rewind
     */
    fun step(ids: IntArray, position: Int): FloatBuffer

    /**
     * Ask the step that runs to end early, with [StepStopped]; from any thread.
     *
     * An engine that cannot does nothing, and one that can may finish first. What is not running
     * is not stopped, so whoever calls it keeps a mark of their own as well, and looks at it before
     * each step.
     */
    fun stop() = Unit
}

/**
 * Refuse tokens that cannot follow those that a cache holds.
 *
 * Every engine calls it, so that the same tokens are refused in the same words.
 *
 * @param held number of positions that were written
 * @throws PromptError there are no ids, one is outside the vocabulary, they do not fit, or the
 *     position is after the last one written
 */
fun StepModel.requireTokens(ids: IntArray, position: Int, held: Int) {
    if (ids.isEmpty()) {
        throw PromptError("there are no tokens to run", "Give a prompt of at least one token.")
    }
    if (position < 0 || position > held) {
        throw PromptError("cannot go on from position $position: the cache holds $held tokens", "")
    }
    if (ids.size > maxContext - position) {
        throw PromptError(
            "${ids.size} more tokens do not fit: the cache holds $position of $maxContext positions",
            "Shorten the text, or export the model with a larger --max-context.",
        )
    }
    val outside = ids.indexOfFirst { it < 0 || it >= vocabSize }
    if (outside >= 0) {
        throw PromptError(
            "token ${ids[outside]} is outside the vocabulary of $vocabSize",
            "The tokenizer belongs to another model: get the whole bundle again.",
        )
    }
}
