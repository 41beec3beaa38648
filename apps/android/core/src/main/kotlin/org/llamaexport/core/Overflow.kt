package org.llamaexport.core

// An answer of fewer tokens is hardly one: the conversation is full before that.
private const val LEAST_ANSWER_TOKENS = 16
private const val FREED_SHARE = 4

/**
 * Why the next turn does not fit, and what would make it fit.
 *
 * @property needed number of tokens of the conversation with the new message
 * @property maxContext number of positions of the context
 * @property droppedTurns number of the oldest messages that would have to go
 * @property keptTokens number of tokens that would be left, and read again; null when even the new
 *     message alone is too long
 * @property tooLong what must be shorter where dropping turns is no help; else empty
 */
data class Overflow(
    val needed: Int,
    val maxContext: Int,
    val droppedTurns: Int,
    val keptTokens: Int?,
    val tooLong: String = "",
) {
    /** What is wrong, in a sentence. */
    val message: String
        get() = "the conversation with this message is $needed tokens long, and the context has " +
            "$maxContext, which must hold the answer too"

    /** What to do next. */
    val hint: String
        get() = (if (tooLong.isEmpty()) "Drop the oldest turns, begin anew" else "Shorten the $tooLong") +
            ", or choose a larger context."
}

/** Counts the tokens of a conversation with its new message. */
fun interface DialogLength {
    /**
     * Count them without the oldest turns, and perhaps without the system message.
     *
     * @param dropped number of turns left out; the more, the fewer tokens
     */
    fun count(dropped: Int, hasSystem: Boolean): Int
}

/**
 * Compare a conversation and its next answer with the context.
 *
 * @param turns number of the turns before the new message
 * @param maxTokens largest number of tokens of the answer
 * @param maxContext number of positions of the context
 * @return null when the answer fits
 */
fun findOverflow(length: DialogLength, turns: Int, maxTokens: Int, maxContext: Int): Overflow? {
    val needed = length.count(0, true)
    val least = minOf(maxTokens, LEAST_ANSWER_TOKENS)
    if (needed + least <= maxContext) return null
    // Once something must go, a quarter of the context is made free: not every turn again.
    val room = maxOf(minOf(maxTokens, maxContext / FREED_SHARE), least)
    val dropped = fewestDropped(turns) {
        length.count(it, true) + (if (it == turns) least else room) <= maxContext
    }
    if (dropped <= turns) return Overflow(needed, maxContext, dropped, length.count(dropped, true))
    return Overflow(needed, maxContext, turns, null, tooLong(length, turns, maxContext - least))
}

/**
 * Return the fewest turns, an even number, without which it fits; more than all: it never does.
 *
 * Counting takes as long as the conversation has letters, so the place is found by halving.
 */
private fun fewestDropped(turns: Int, fits: (Int) -> Boolean): Int {
    var low = 1
    var high = turns / 2 + 1
    while (low < high) {
        val middle = (low + high) / 2
        if (fits(2 * middle)) high = middle else low = middle + 1
    }
    return 2 * low
}

/** Return what must be shorter when a message does not fit even alone. */
private fun tooLong(length: DialogLength, turns: Int, room: Int): String {
    val alone = length.count(turns, false)
    return when {
        length.count(turns, true) - alone > room -> "system message"
        alone <= room -> "message or the system message"
        else -> "message"
    }
}
