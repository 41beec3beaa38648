package org.llamaexport.core.tokenizer

import org.llamaexport.core.PromptError
import org.llamaexport.core.StreamDecoder

/** What ids stand for, and how their texts are put together. */
internal interface Decoding {
    /** Begin to decode a text; [continues] where other text comes before. */
    fun stream(continues: Boolean): StreamDecoder
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
    override fun stream(continues: Boolean): StreamDecoder = object : StreamDecoder {
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
    override fun stream(continues: Boolean): StreamDecoder = object : StreamDecoder {
        private val blanksAtBegin = if (continues) 0 else droppedBlanks
        private var blanksLeft = blanksAtBegin
        private var bytes = ByteArray(0)

        override fun push(id: Int): String {
            requireId(id, pieces.size)
            val piece = pieces[id].orEmpty()
            val byte = byteOfPiece(piece)
            if (byte == null) return withoutBlanks(endOfBytes() + piece.replace(BLANK_LETTER, ' '))
            bytes += byte
            return withoutBlanks(wholeCharacters())
        }

        override fun flush(): String = withoutBlanks(endOfBytes()).also { blanksLeft = blanksAtBegin }

        private fun endOfBytes(): String {
            val rest = Utf8Decoder.REPLACEMENT.toString().repeat(bytes.size)
            bytes = ByteArray(0)
            return rest
        }

        private fun wholeCharacters(): String = buildString {
            while (bytes.isNotEmpty()) append(firstCharacter() ?: break)
        }

        /** Take off the first character, or a byte that begins none as U+FFFD; null: it is not whole yet. */
        private fun firstCharacter(): String? {
            val text = StringBuilder()
            val decoder = Utf8Decoder()
            var size = 0
            while (text.isEmpty()) {
                if (size == bytes.size) return null
                decoder.decode(byteArrayOf(bytes[size++]), text)
            }
            val isWhole = text.toString().encodeToByteArray().contentEquals(bytes.copyOf(size))
            bytes = bytes.copyOfRange(if (isWhole) size else 1, bytes.size)
            return if (isWhole) text.toString() else Utf8Decoder.REPLACEMENT.toString()
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

/** Return the byte that SentencePiece's `<0x0A>` stands for, or null where it is another piece. */
internal fun byteOfPiece(piece: String): Byte? {
    if (piece.length != 6 || !piece.startsWith("<0x") || piece[5] != '>') return null
    val digits = piece.substring(3, 5)
    return if (digits.all { it in HEX_DIGITS }) digits.toInt(16).toByte() else null
}

private const val HEX_DIGITS = "0123456789ABCDEFabcdef"
