package org.llamaexport.core.tokenizer

import org.llamaexport.core.JsonArray
import org.llamaexport.core.JsonFields
import org.llamaexport.core.JsonNumber
import org.llamaexport.core.fields
import org.llamaexport.core.parseJson

/**
 * What the patterns of tokenizers take each character for.
 *
 * It is read from a table that was made by asking the tokenizers' own engine, because the tables of
 * a phone are older or newer, and every Android has others.
 */
internal class CharacterClasses private constructor(
    private val classes: ByteArray,
    private val endingLetters: Map<Int, Char>,
) {
    /** Return [LETTER], [NUMBER], [BLANK] or [OTHER]. */
    fun classOf(codePoint: Int): Int = classes[codePoint].toInt() and CLASS_MASK

    /** Return whether the step `Digits` splits a character off; it knows more than [NUMBER]. */
    fun splitsOff(codePoint: Int): Boolean = classes[codePoint].toInt() and DIGIT_FLAG != 0

    /** Return which letter of an ending such as `'s` a character is in any case, or null. */
    fun endingLetter(codePoint: Int): Char? = endingLetters[codePoint]

    companion object {
        const val OTHER = 0
        const val LETTER = 1
        const val NUMBER = 2
        const val BLANK = 3
        private const val CLASS_MASK = 3
        private const val DIGIT_FLAG = 4
        private const val CODE_POINTS = 0x110000
        private const val RESOURCE = "/org/llamaexport/core/unicode.json"
        private val KEYS = mapOf(
            "letters" to LETTER,
            "numbers" to NUMBER,
            "blanks" to BLANK,
            "digits" to DIGIT_FLAG,
        )

        /** The table that is packaged with this library. */
        val shared: CharacterClasses by lazy {
            val file = checkNotNull(CharacterClasses::class.java.getResourceAsStream(RESOURCE)) {
                "$RESOURCE is not packaged: add apps/shared/tables to the resources"
            }
            val text = file.use { it.readBytes() }.decodeToString()
            of(parseJson(text, RESOURCE).fields(RESOURCE))
        }

        private fun of(table: JsonFields): CharacterClasses {
            check(table.int("format_version") == 1) { "unicode.json: expected format 1" }
            val classes = ByteArray(CODE_POINTS)
            for ((key, bits) in KEYS) {
                var at = 0
                table.list(key).map { (it as JsonNumber).int() }.chunked(2).forEach { (gap, length) ->
                    at += gap
                    repeat(length) {
                        classes[at] = (classes[at].toInt() or bits).toByte()
                        at += 1
                    }
                }
            }
            val endings = table.fields("endings").json.entries.flatMap { (letter, codes) ->
                (codes as JsonArray).items.map { (it as JsonNumber).int() to letter.single() }
            }
            return CharacterClasses(classes, endings.toMap())
        }
    }
}
