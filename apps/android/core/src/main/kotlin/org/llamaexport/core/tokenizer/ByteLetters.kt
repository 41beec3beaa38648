package org.llamaexport.core.tokenizer

/** GPT-2's letters: a printable character for each byte, in which byte-level vocabularies are spelt. */
internal object ByteLetters {
    private val letters: CharArray = run {
        // Themselves where they can be printed, else the next character from U+0100 on.
        var next = 0x100
        CharArray(256) { byte ->
            val isPrintable = byte in 0x21..0x7E || byte in 0xA1..0xAC || byte in 0xAE..0xFF
            if (isPrintable) byte.toChar() else (next++).toChar()
        }
    }
    private val bytes: Map<Char, Byte> = letters.indices.associate { letters[it] to it.toByte() }

    /** Spell bytes in letters. */
    fun spell(token: ByteArray): String =
        String(CharArray(token.size) { letters[token[it].toInt() and 0xFF] })

    /** Return the bytes that a token in letters stands for, or null where it is spelt otherwise. */
    fun bytesOf(token: String): ByteArray? {
        val found = ByteArray(token.length)
        for ((index, letter) in token.withIndex()) found[index] = bytes[letter] ?: return null
        return found
    }
}
