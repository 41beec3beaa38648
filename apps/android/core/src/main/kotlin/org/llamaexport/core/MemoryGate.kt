package org.llamaexport.core

private const val FEWEST_TOKENS = 512
private const val STEP_TOKENS = 256

/** What can be said of a model before it is loaded; numbers are bytes. */
sealed interface MemoryAnswer {
    /** It fits with the whole context. */
    data class Fits(val needBytes: Long, val availableBytes: Long) : MemoryAnswer

    /** It fits with a context of [tokens], and not with the one that was asked for. */
    data class Smaller(val tokens: Int, val needBytes: Long, val availableBytes: Long) : MemoryAnswer

    /** It does not fit even with the shortest useful context. */
    data class TooLarge(val needBytes: Long, val availableBytes: Long) : MemoryAnswer

    /** The bundle does not say what it needs. */
    data object Unknown : MemoryAnswer
}

/**
 * Compare what a model needs with what the system has to give.
 *
 * The system kills an app that takes too much, without a word; so it is asked before. It is an
 * estimate: an app offers "try anyway".
 *
 * @param need the manifest's figures; null: unknown
 * @param contextTokens number of positions that are wanted
 * @param availableBytes memory that the system says an app may still take
 * @param reservedBytes part of it that is left to the app itself and its screen
 */
fun askMemory(
    need: MemoryNeed?,
    contextTokens: Int,
    availableBytes: Long,
    reservedBytes: Long,
): MemoryAnswer {
    if (need == null) return MemoryAnswer.Unknown
    val whole = need.bytesFor(contextTokens)
    val usable = maxOf(0L, availableBytes - reservedBytes)
    if (whole <= usable) return MemoryAnswer.Fits(whole, availableBytes)
    val left = usable - need.residentBytes
    val tokens = if (need.kvBytesPerToken == 0L) 0L else left / need.kvBytesPerToken
    val rounded = minOf(tokens - Math.floorMod(tokens, STEP_TOKENS.toLong()), contextTokens.toLong()).toInt()
    if (left <= 0 || rounded < FEWEST_TOKENS) return MemoryAnswer.TooLarge(whole, availableBytes)
    return MemoryAnswer.Smaller(rounded, need.bytesFor(rounded), availableBytes)
}

/** Return the bytes that a model takes with a context, capped where they cannot be counted. */
fun MemoryNeed.bytesFor(tokens: Int): Long = try {
    Math.addExact(residentBytes, Math.multiplyExact(kvBytesPerToken, tokens.toLong()))
} catch (_: ArithmeticException) {
    Long.MAX_VALUE
}
