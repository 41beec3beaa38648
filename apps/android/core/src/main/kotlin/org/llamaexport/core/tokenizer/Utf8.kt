package org.llamaexport.core.tokenizer

import org.llamaexport.core.PromptError
import org.llamaexport.core.findHalfPair

/**
 * Refuse text that has no UTF-8.
 *
 * @throws PromptError the text holds half of a surrogate pair, which is no character
 */
internal fun requireCharacters(text: String) {
    val at = findHalfPair(text)
    if (at < 0) return
    val code = text[at].code.toString(16).uppercase()
    throw PromptError(
        "text cannot be encoded: half of a surrogate pair, U+$code, at $at",
        "Write the text again without that character.",
    )
}

/**
 * Write the UTF-8 of `text[from, to)`.
 *
 * @param into bytes `[>= 3 (to - from)]`
 * @return number of bytes, from index 0 on
 */
internal fun utf8(text: String, from: Int, to: Int, into: ByteArray): Int {
    var size = 0
    var at = from
    while (at < to) {
        val code = codePointAt(text, at)
        at += unitsOf(code)
        size = utf8(code, into, size)
    }
    return size
}

private fun utf8(code: Int, into: ByteArray, start: Int): Int {
    if (code < 0x80) {
        into[start] = code.toByte()
        return start + 1
    }
    val following = if (code < 0x800) 1 else if (code < 0x10000) 2 else 3
    into[start] = (FIRST_BITS[following] or (code shr (6 * following))).toByte()
    for (index in 1..following) {
        into[start + index] = (0x80 or (code shr (6 * (following - index)) and 0x3F)).toByte()
    }
    return start + 1 + following
}

private val FIRST_BITS = intArrayOf(0, 0xC0, 0xE0, 0xF0)

/**
 * Decodes UTF-8 that comes in parts, into whole characters only.
 *
 * The longest part of what is no character that could have begun one becomes one U+FFFD, as Python
 * and the Unicode standard have it.
 */
internal class Utf8Decoder {
    private var code = 0
    private var missing = 0
    // What the next byte must be; after some first bytes not all are allowed.
    private var least = LEAST_FOLLOWING
    private var most = MOST_FOLLOWING

    /** Append the characters that some bytes complete. */
    fun decode(bytes: ByteArray, out: StringBuilder) {
        for (byte in bytes) decode(byte.toInt() and 0xFF, out)
    }

    /** Append U+FFFD for a character that was never finished, and begin anew. */
    fun finish(out: StringBuilder) {
        if (missing > 0) out.append(REPLACEMENT)
        begin(0, 0)
    }

    private fun decode(byte: Int, out: StringBuilder) {
        if (missing > 0) {
            if (byte in least..most) return goOn(byte, out)
            finish(out)
        }
        when (byte) {
            in 0x00..0x7F -> out.append(byte.toChar())
            in 0xC2..0xDF -> begin(byte and 0x1F, 1)
            0xE0 -> begin(byte and 0x0F, 2, least = 0xA0)
            0xED -> begin(byte and 0x0F, 2, most = 0x9F)
            in 0xE1..0xEF -> begin(byte and 0x0F, 2)
            0xF0 -> begin(byte and 0x07, 3, least = 0x90)
            0xF4 -> begin(byte and 0x07, 3, most = 0x8F)
            in 0xF1..0xF3 -> begin(byte and 0x07, 3)
            else -> out.append(REPLACEMENT)
        }
    }

    private fun begin(bits: Int, following: Int, least: Int = LEAST_FOLLOWING, most: Int = MOST_FOLLOWING) {
        code = bits
        missing = following
        this.least = least
        this.most = most
    }

    private fun goOn(byte: Int, out: StringBuilder) {
        begin(code shl 6 or (byte and 0x3F), missing - 1)
        if (missing == 0) appendCharacter(code, out)
    }

    companion object {
        const val REPLACEMENT = '\uFFFD'
        private const val LEAST_FOLLOWING = 0x80
        private const val MOST_FOLLOWING = 0xBF
    }
}

/** Append a character, as a surrogate pair where it needs one. */
internal fun appendCharacter(code: Int, out: StringBuilder) {
    if (code < 0x10000) {
        out.append(code.toChar())
    } else {
        out.append((0xD800 + ((code - 0x10000) shr 10)).toChar())
        out.append((0xDC00 + (code - 0x10000 and 0x3FF)).toChar())
    }
}
