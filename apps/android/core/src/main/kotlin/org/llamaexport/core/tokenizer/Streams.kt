package org.llamaexport.core.tokenizer

import org.llamaexport.core.PromptError
import org.llamaexport.core.StreamDecoder

/** What ids stand for, and how their texts are put together. */
internal interface Decoding {
    /** Begin to decode a text. */
    fun stream(): StreamDecoder
}

/** Refuse an id that no token has. */
internal fun requireId(id: Int, vocabSize: Int) {
    if (id in 0 until vocabSize) return
    throw PromptError(
        "token id $id is outside the vocabulary of $vocabSize",
        "Use the tokenizer of the model that wrote the ids: get the whole bundle again.",
    )
}

/**
 * Every id stands for some bytes, whatever comes before it.
 *
 * @param tokens bytes by id; null for an id in a gap, which means nothing
 */
internal class ByteDecoding(private val tokens: List<ByteArray?>) : Decoding {
    override fun stream(): StreamDecoder = object : StreamDecoder {
        private val utf8 = Utf8Decoder()

        override fun push(id: Int): String {
            requireId(id, tokens.size)
            return buildString { tokens[id]?.let { utf8.decode(it, this) } }
        }

        override fun flush(): String = buildString { utf8.finish(this) }
    }
}

/**
 * Every id stands for a text, or for one byte of a character that has no piece.
 *
 * @param pieces tokens by id as the file spells them; null for an id in a gap
 * @param droppedBlanks number of blanks that fall away at the very beginning
 */
internal class PieceDecoding(private val pieces: List<String?>, private val droppedBlanks: Int) : Decoding {
    override fun stream(): StreamDecoder = object : StreamDecoder {
        private var blanksLeft = droppedBlanks
        private var bytes = ByteArray(0)

        override fun push(id: Int): String {
            requireId(id, pieces.size)
            val piece = pieces[id].orEmpty()
            val byte = byteOfPiece(piece)
            if (byte == null) return withoutBlanks(endOfBytes() + piece.replace(BLANK_LETTER, ' '))
            bytes += byte
            return withoutBlanks(wholeCharacters())
        }

        override fun flush(): String = withoutBlanks(endOfBytes()).also { blanksLeft = droppedBlanks }

        private fun endOfBytes(): String {
            val rest = Utf8Decoder.REPLACEMENT.toString().repeat(bytes.size)
            bytes = ByteArray(0)
            return rest
        }

        /** Take off what are whole characters, and each byte that can begin none as one U+FFFD. */
        private fun wholeCharacters(): String = buildString {
            while (bytes.isNotEmpty()) {
                val text = StringBuilder()
                val decoder = Utf8Decoder()
                val taken = (1..bytes.size).firstOrNull { count ->
                    decoder.decode(byteArrayOf(bytes[count - 1]), text)
                    text.isNotEmpty()
                } ?: return@buildString
                val isCharacter = text[0] != Utf8Decoder.REPLACEMENT || taken == REPLACEMENT_BYTES.size &&
                    bytes.copyOf(taken).contentEquals(REPLACEMENT_BYTES)
                append(if (isCharacter) text else Utf8Decoder.REPLACEMENT)
                bytes = bytes.copyOfRange(if (isCharacter) taken else 1, bytes.size)
            }
        }

        private fun withoutBlanks(text: String): String {
            if (blanksLeft == 0 || text.isEmpty()) return text
            val dropped = text.takeWhile { it == ' ' }.length.coerceAtMost(blanksLeft)
            blanksLeft = if (dropped < text.length) 0 else blanksLeft - dropped
            return text.substring(dropped)
        }
    }
}

/** The letter that SentencePiece writes for a blank. */
internal const val BLANK_LETTER = '\u2581'

private val REPLACEMENT_BYTES = byteArrayOf(0xEF.toByte(), 0xBF.toByte(), 0xBD.toByte())

/** Return the byte that SentencePiece's `<0x0A>` stands for, or null where it is another piece. */
internal fun byteOfPiece(piece: String): Byte? {
    if (piece.length != 6 || !piece.startsWith("<0x") || piece[5] != '>') return null
    val digits = piece.substring(3, 5)
    return if (digits.all { it in HEX_DIGITS }) digits.toInt(16).toByte() else null
}

private const val HEX_DIGITS = "0123456789ABCDEFabcdef"
