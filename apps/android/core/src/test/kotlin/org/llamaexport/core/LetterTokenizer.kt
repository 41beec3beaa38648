package org.llamaexport.core

/**
 * A tokenizer whose ids are UTF-8's bytes, and special tokens after them.
 *
 * @param names names of the special tokens, from id 256 on
 */
class LetterTokenizer(names: List<String> = emptyList()) : Tokenizer {
    /** What was encoded, in order. */
    val encoded = ArrayList<String>()

    /** Whether each of them came behind something else. */
    val wereContinuing = ArrayList<Boolean>()

    override val vocabSize: Int = BYTES + names.size
    override val specialTokens: Map<String, Int> =
        names.withIndex().associate { (at, name) -> name to BYTES + at }
    override val prefixIds: IntArray = intArrayOf()

    override fun encode(text: String, continues: Boolean): IntArray {
        encoded += text
        wereContinuing += continues
        return text.toByteArray().map { it.toInt() and 0xFF }.toIntArray()
    }

    override fun tokenName(id: Int): String? = specialTokens.entries.firstOrNull { it.value == id }?.key

    override fun decode(ids: IntArray): String = String(ids.map { it.toByte() }.toByteArray())

    override fun streamDecoder(continues: Boolean): StreamDecoder = object : StreamDecoder {
        private var held = ByteArray(0)

        override fun push(id: Int): String {
            held += id.toByte()
            val text = String(held)
            if (text.endsWith('\uFFFD') && held.size < LONGEST) return ""
            held = ByteArray(0)
            return text
        }

        override fun flush(): String = String(held).also { held = ByteArray(0) }
    }

    private companion object {
        const val BYTES = 256
        const val LONGEST = 4
    }
}
