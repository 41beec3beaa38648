package org.llamaexport.core.tokenizer

import org.llamaexport.core.BundleError
import org.llamaexport.core.IntList
import java.util.Base64

/**
 * Meta's `tokenizer.model`: the bytes of each text token by its id, which is its rank.
 *
 * Special tokens are not in the file; they follow the last rank.
 */
internal class RankTokens(val tokens: List<ByteArray>) {
    /** Ids by bytes. */
    val table = ByteTable(tokens)

    /**
     * Pairs of tokens that make a token, by the id of the result, then of the parts: left, right and
     * result, one after the other.
     */
    val merges: IntList by lazy {
        IntList().also { found ->
            val cuts = LongArray(MOST_TOKEN_BYTES)
            tokens.forEachIndexed { id, token -> addMerges(token, id, cuts, found) }
        }
    }

    private fun addMerges(token: ByteArray, id: Int, cuts: LongArray, found: IntList) {
        var count = 0
        for (cut in 1 until token.size) {
            val left = table.find(token, 0, cut)
            val right = if (left < 0) -1 else table.find(token, cut, token.size)
            if (right >= 0) cuts[count++] = left.toLong() shl Int.SIZE_BITS or right.toLong()
        }
        cuts.sort(0, count)
        for (at in 0 until count) {
            found.add((cuts[at] ushr Int.SIZE_BITS).toInt())
            found.add(cuts[at].toInt())
            found.add(id)
        }
    }

    /** Return how the tokens are merged: the result's rank decides, and left comes before right. */
    private fun mergeTable(): MergeTable {
        val found = MergeTable(merges.size / 3)
        for (at in 0 until merges.size step 3) {
            val result = merges.items[at + 2]
            found.put(merges.items[at], merges.items[at + 1], result, result)
        }
        return found
    }

    /** Return the tokenizer of a Llama 3 with these tokens. */
    fun tokenizer(): BpeTokenizer {
        val names = LLAMA3_SPECIAL_TOKENS
        val added = AddedTokens(names.withIndex().associate { (index, name) -> name to tokens.size + index })
        added.add(names.map { AddedToken(it, false, false, false, false, isSpecial = true) })
        val byteIds = IntArray(256) { table.find(byteArrayOf(it.toByte()), 0, 1) }
        val splitters = listOf(Llama3Splitter(CharacterClasses.shared))
        return BpeTokenizer(
            vocabSize = tokens.size + names.size,
            prefixIds = intArrayOf(tokens.size),
            added = added,
            normalize = { text, _ -> text },
            sections = ByteLevelModel(splitters, byteIds, mergeTable(), table, Unknown(-1, false)),
            decoding = ByteDecoding(tokens + names.map { it.encodeToByteArray() }),
        )
    }

    companion object {
        private const val MOST_TOKENS = 1 shl 20
        private const val MOST_TOKEN_BYTES = 256
        private const val MOST_RANK_DIGITS = 9

        /** Merges are found by cutting each token at each place; Llama 3's have 0.8 MB together. */
        private const val MOST_BYTES = 4 * 1024 * 1024

        /**
         * Read the bytes of a `tokenizer.model`.
         *
         * @throws BundleError it is damaged, or no vocabulary of a Llama 3
         */
        fun parse(data: ByteArray, where: String): RankTokens {
            val found = ArrayList<ByteArray?>()
            var count = 0
            var sizeBytes = 0
            var at = 0
            while (at < data.size) {
                var end = at
                while (end < data.size && data[end] != '\n'.code.toByte()) end += 1
                count += 1
                if (count > MOST_TOKENS) fail("$where has more than $MOST_TOKENS lines")
                val line = data.decodeToString(at, end).removeSuffix("\r")
                val (token, rank) = parseLine(line)
                    ?: fail("$where, line $count: expected `base64 rank`, found ${shown(line)}")
                if (rank >= MOST_TOKENS) fail("$where, line $count: the rank $rank is too large")
                if (token.size !in 1..MOST_TOKEN_BYTES) {
                    val expected = "expected a token of 1 to $MOST_TOKEN_BYTES bytes"
                    fail("$where, line $count: $expected, found ${token.size}")
                }
                sizeBytes += token.size
                if (sizeBytes > MOST_BYTES) {
                    fail("$where: its tokens have more than $MOST_BYTES bytes together")
                }
                while (found.size <= rank) found.add(null)
                if (found[rank] != null) fail("$where, line $count: the rank $rank is given twice")
                found[rank] = token
                at = end + 1
            }
            return checked(found, where)
        }

        private fun fail(message: String): Nothing = throw BundleError(message, GET_ANOTHER)

        private fun parseLine(line: String): Pair<ByteArray, Int>? {
            val digits = line.substringAfter(' ', "")
            if (digits.length !in 1..MOST_RANK_DIGITS || digits.any { it !in '0'..'9' }) return null
            return try {
                Base64.getDecoder().decode(line.substringBefore(' ')) to digits.toInt()
            } catch (_: IllegalArgumentException) {
                null
            }
        }

        private fun checked(found: List<ByteArray?>, where: String): RankTokens {
            val tokens = found.filterNotNull()
            if (tokens.size < found.size) fail("$where: the ranks of its ${tokens.size} tokens have a gap")
            val made = RankTokens(tokens)
            val twice = tokens.indices.find { made.table.find(tokens[it], 0, tokens[it].size) != it }
            if (twice != null) fail("$where: the token of rank $twice stands there twice")
            val missing = (0..255).filter { made.table.find(byteArrayOf(it.toByte()), 0, 1) < 0 }
            if (missing.isNotEmpty()) fail("$where: ${missing.size} of the 256 single bytes have no token")
            return made
        }
    }
}

/** Names of Llama 3's special tokens, in the order of their ids; of Llama 3.1 and later. */
internal val LLAMA3_SPECIAL_TOKENS: List<String> = listOf(
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
).let { named -> named + (3 until 256 - named.size + 3).map { "<|reserved_special_token_$it|>" } }
