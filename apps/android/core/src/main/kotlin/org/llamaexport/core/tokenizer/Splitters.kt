package org.llamaexport.core.tokenizer

import org.llamaexport.core.tokenizer.CharacterClasses.Companion.BLANK
import org.llamaexport.core.tokenizer.CharacterClasses.Companion.LETTER
import org.llamaexport.core.tokenizer.CharacterClasses.Companion.NUMBER
import org.llamaexport.core.tokenizer.CharacterClasses.Companion.OTHER

/** Cuts a text into pieces that lie one after the other, each of which is merged by itself. */
internal fun interface Splitter {
    /**
     * Return where the piece ends that begins at [from].
     *
     * @param text text without half a surrogate pair
     * @param from index of a character before [to]
     * @param to where the text ends; what follows is not looked at
     */
    fun end(text: String, from: Int, to: Int): Int
}

/** Cut `text[from, to)` by each splitter in turn, each piece anew, and take the last one's pieces. */
internal fun List<Splitter>.split(text: String, from: Int, to: Int, take: (Int, Int) -> Unit) {
    splitFrom(0, text, from, to, take)
}

private fun List<Splitter>.splitFrom(
    step: Int,
    text: String,
    from: Int,
    to: Int,
    take: (Int, Int) -> Unit,
) {
    if (step == size) return take(from, to)
    var at = from
    while (at < to) {
        val end = this[step].end(text, at, to)
        splitFrom(step + 1, text, at, end, take)
        at = end
    }
}

/** Return the character at an index, of a text without half a surrogate pair. */
internal fun codePointAt(text: String, index: Int): Int {
    val unit = text[index]
    if (unit !in '\uD800'..'\uDBFF') return unit.code
    return 0x10000 + ((unit.code - 0xD800) shl 10) + (text[index + 1].code - 0xDC00)
}

/** Return how many UTF-16 code units a character has. */
internal fun unitsOf(codePoint: Int): Int = if (codePoint < 0x10000) 1 else 2

/**
 * Splits as Llama 3's pattern does, [PATTERN].
 *
 * Every alternative stands at the top with nothing after it, so the first that begins to match is
 * taken whole and nothing is ever tried twice.
 */
internal class Llama3Splitter(private val classes: CharacterClasses) : Splitter {
    override fun end(text: String, from: Int, to: Int): Int {
        val first = codePointAt(text, from)
        if (first == '\''.code) endOfEnding(text, from, to).let { if (it > from) return it }
        val kind = classes.classOf(first)
        if (kind == LETTER) return classes.endOf(LETTER, text, from, to)
        if (kind == NUMBER) return endOfNumber(text, from, to)
        val next = from + unitsOf(first)
        val nextKind = if (next < to) classes.classOf(codePointAt(text, next)) else BLANK
        val isLineEnd = first == '\n'.code || first == '\r'.code
        if (nextKind == LETTER && !isLineEnd) return classes.endOf(LETTER, text, next, to)
        if (kind == OTHER) return endOfOthers(text, from, to)
        if (nextKind == OTHER && first == ' '.code) return endOfOthers(text, next, to)
        return endOfBlanks(text, from, to)
    }

    private fun endOfEnding(text: String, from: Int, to: Int): Int {
        val one = if (from + 1 < to) classes.endingLetter(text[from + 1].code) else null
        if (one != null && one in "stmd") return from + 2
        val two = if (from + 2 < to) classes.endingLetter(text[from + 2].code) else null
        val isEnding = (one == 'l' && two == 'l') || ((one == 'r' || one == 'v') && two == 'e')
        return if (isEnding) from + 3 else from
    }

    private fun endOfNumber(text: String, from: Int, to: Int): Int {
        var at = from
        repeat(MOST_DIGITS) {
            val digit = if (at < to) codePointAt(text, at) else return at
            if (classes.classOf(digit) != NUMBER) return at
            at += unitsOf(digit)
        }
        return at
    }

    private fun endOfOthers(text: String, from: Int, to: Int): Int {
        var at = classes.endOf(OTHER, text, from, to)
        while (at < to && (text[at] == '\n' || text[at] == '\r')) at += 1
        return at
    }

    private fun endOfBlanks(text: String, from: Int, to: Int): Int {
        val end = classes.endOf(BLANK, text, from, to)
        for (at in end - 1 downTo from) if (text[at] == '\n' || text[at] == '\r') return at + 1
        return withoutLast(from, end, to)
    }

    companion object {
        const val PATTERN = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" +
            "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        private const val MOST_DIGITS = 3
    }
}

/**
 * Splits as GPT-2's pattern does:
 * `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
 */
internal class Gpt2Splitter(private val classes: CharacterClasses) : Splitter {
    override fun end(text: String, from: Int, to: Int): Int {
        val ending = if (text[from] == '\'') ENDINGS.find { text.startsWith(it, from) } else null
        if (ending != null && from + ending.length <= to) return from + ending.length
        val first = if (text[from] == ' ' && from + 1 < to) from + 1 else from
        val kind = classes.classOf(codePointAt(text, first))
        if (kind != BLANK) return classes.endOf(kind, text, first, to)
        return withoutLast(from, classes.endOf(BLANK, text, from, to), to)
    }

    private companion object {
        val ENDINGS = listOf("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
    }
}

/** Splits digits off: each for itself, or a row of them together. */
internal class DigitSplitter(private val classes: CharacterClasses, private val alone: Boolean) : Splitter {
    override fun end(text: String, from: Int, to: Int): Int {
        val first = codePointAt(text, from)
        val isDigit = classes.splitsOff(first)
        var at = from + unitsOf(first)
        if (isDigit && alone) return at
        while (at < to) {
            val next = codePointAt(text, at)
            if (classes.splitsOff(next) != isDigit) break
            at += unitsOf(next)
        }
        return at
    }
}

private fun CharacterClasses.endOf(kind: Int, text: String, from: Int, to: Int): Int {
    var at = from
    while (at < to) {
        val next = codePointAt(text, at)
        if (classOf(next) != kind) break
        at += unitsOf(next)
    }
    return at
}

/** Leave the last blank of a row to the word after it; every blank has one code unit. */
private fun withoutLast(from: Int, end: Int, to: Int): Int =
    if (end == to || end == from + 1) end else end - 1
