package org.llamaexport.core.tokenizer

import org.llamaexport.core.IntList
import org.llamaexport.core.tokenizer.CharacterClasses.Companion.BLANK

/** How text between added tokens becomes ids. */
internal fun interface SectionModel {
    /** Return what encodes the sections of one text, by one thread. */
    fun begin(): SectionEncoder
}

internal fun interface SectionEncoder {
    /**
     * Append the ids of a section.
     *
     * @param text a section that is not empty, normalised
     * @param isFirst whether it begins where the text does
     */
    fun encode(text: String, isFirst: Boolean, out: IntList)
}

/**
 * What stands for a character without a token.
 *
 * @property id token, or -1 where such a character is left out
 * @property fuses whether several in a row become one token
 */
internal class Unknown(val id: Int, val fuses: Boolean)

/** Puts the token for unknown characters between the others, in the library's order. */
private class UnknownRun(private val unknown: Unknown) {
    private var waits = false

    fun meet(out: IntList) {
        if (unknown.id < 0) return
        if (waits && !unknown.fuses) out.add(unknown.id)
        waits = true
    }

    fun end(out: IntList) {
        if (waits) out.add(unknown.id)
        waits = false
    }
}

/**
 * Byte-level BPE: each piece of a text is merged from its bytes.
 *
 * @param splitters what cuts the pieces
 * @param byteIds id of each byte's token `[256]`; -1 for none
 * @param words tokens that a whole piece becomes without merging; null: none
 */
internal class ByteLevelModel(
    private val splitters: List<Splitter>,
    private val byteIds: IntArray,
    private val merges: MergeTable,
    private val words: ByteTable?,
    private val unknown: Unknown,
) : SectionModel {
    override fun begin(): SectionEncoder {
        val merger = Merger(merges)
        val tokens = IntList()
        var bytes = ByteArray(256)
        return SectionEncoder { text, _, out ->
            splitters.split(text, 0, text.length) { from, to ->
                if (bytes.size < 3 * (to - from)) bytes = ByteArray(6 * (to - from))
                val size = utf8(text, from, to, bytes)
                val word = words?.find(bytes, 0, size) ?: -1
                if (word >= 0) {
                    out.add(word)
                } else {
                    addBytes(bytes, size, tokens)
                    val count = merger.merge(tokens.items, tokens.size)
                    for (at in 0 until count) out.add(tokens.items[at])
                }
            }
        }
    }

    private fun addBytes(bytes: ByteArray, size: Int, tokens: IntList) {
        tokens.clear()
        val run = UnknownRun(unknown)
        for (at in 0 until size) {
            val id = byteIds[bytes[at].toInt() and 0xFF]
            if (id < 0) {
                run.meet(tokens)
            } else {
                run.end(tokens)
                tokens.add(id)
            }
        }
        run.end(tokens)
    }
}

/** Ids of single characters: a table of the first plane, and a map of the others. */
internal class CharacterIds(vocabulary: Map<String, Int>) {
    private val low = IntArray(0x10000) { -1 }
    private val high = HashMap<Int, Int>()

    init {
        for ((token, id) in vocabulary) {
            if (token.isEmpty() || token.length > 2) continue
            if (token.length == 1) low[token[0].code] = id
            if (token.length == 2 && token[0] in '\uD800'..'\uDBFF') high[codePointAt(token, 0)] = id
        }
    }

    /** Return the id of a character, or -1. */
    fun of(codePoint: Int): Int = if (codePoint < low.size) low[codePoint] else high[codePoint] ?: -1
}

/**
 * SentencePiece's kind of BPE: a section is merged from its characters, all of it as one word.
 *
 * @param characters ids of single characters
 * @param byteIds ids of the bytes of other characters `[256]`; null: they are unknown
 * @param words tokens that a whole section becomes without merging; null: none
 * @param prepare what is done to a section before, such as writing blanks as letters
 */
internal class PieceModel(
    private val characters: CharacterIds,
    private val byteIds: IntArray?,
    private val merges: MergeTable,
    private val words: Map<String, Int>?,
    private val unknown: Unknown,
    private val prepare: (text: String, isFirst: Boolean) -> String,
) : SectionModel {
    override fun begin(): SectionEncoder {
        val merger = Merger(merges)
        val tokens = IntList()
        return SectionEncoder { text, isFirst, out ->
            val section = prepare(text, isFirst)
            val word = words?.get(section)
            if (word != null) {
                out.add(word)
            } else {
                addCharacters(section, tokens)
                val count = merger.merge(tokens.items, tokens.size)
                for (at in 0 until count) out.add(tokens.items[at])
            }
        }
    }

    private fun addCharacters(text: String, tokens: IntList) {
        tokens.clear()
        val run = UnknownRun(unknown)
        val bytes = ByteArray(MOST_UTF8_BYTES)
        var at = 0
        while (at < text.length) {
            val code = codePointAt(text, at)
            val next = at + unitsOf(code)
            val id = characters.of(code)
            if (id >= 0) {
                run.end(tokens)
                tokens.add(id)
            } else if (byteIds == null || !addBytes(bytes, utf8(text, at, next, bytes), byteIds, tokens)) {
                run.meet(tokens)
            }
            at = next
        }
        run.end(tokens)
    }

    private fun addBytes(bytes: ByteArray, size: Int, ids: IntArray, tokens: IntList): Boolean {
        for (at in 0 until size) if (ids[bytes[at].toInt() and 0xFF] < 0) return false
        for (at in 0 until size) tokens.add(ids[bytes[at].toInt() and 0xFF])
        return true
    }

    private companion object {
        const val MOST_UTF8_BYTES = 6
    }
}

/** Return whether a character is a blank to the patterns of added tokens. */
internal fun CharacterClasses.isBlank(unit: Char): Boolean = classOf(unit.code) == BLANK
