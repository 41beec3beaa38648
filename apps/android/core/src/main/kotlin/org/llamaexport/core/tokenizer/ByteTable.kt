package org.llamaexport.core.tokenizer

/**
 * Ids of tokens by their bytes.
 *
 * @param tokens bytes of each token by its id; null is left out, and so is a later token of the same
 *     bytes
 */
internal class ByteTable(private val tokens: List<ByteArray?>) {
    private val mask = tableSize(tokens.size) - 1
    private val slots = IntArray(mask + 1) { -1 }

    init {
        tokens.forEachIndexed { id, token ->
            if (token != null) {
                val slot = slotOf(token, 0, token.size)
                if (slots[slot] < 0) slots[slot] = id
            }
        }
    }

    /** Return the id of the token with the bytes `bytes[from, to)`, or -1 where there is none. */
    fun find(bytes: ByteArray, from: Int, to: Int): Int = slots[slotOf(bytes, from, to)]

    private fun slotOf(bytes: ByteArray, from: Int, to: Int): Int {
        var hash = -2128831035
        for (at in from until to) hash = (hash xor bytes[at].toInt()) * 16777619
        var slot = (hash xor (hash ushr 15)) and mask
        while (slots[slot] >= 0 && !isSame(tokens[slots[slot]], bytes, from, to)) slot = (slot + 1) and mask
        return slot
    }

    private fun isSame(token: ByteArray?, bytes: ByteArray, from: Int, to: Int): Boolean {
        if (token == null || token.size != to - from) return false
        for (at in token.indices) if (token[at] != bytes[from + at]) return false
        return true
    }
}
