package org.llamaexport.core.tokenizer

import org.llamaexport.core.JsonText
import org.llamaexport.core.write

/**
 * Tells whether a `tokenizer.json` is the one that an export writes beside a `tokenizer.model`.
 *
 * Then the small file says all, and the large one need not be parsed. Every byte is compared, so a
 * fine-tune that changed a token in its tokenizer.json is seen.
 */
internal object Llama3Json {
    /** How an export's file begins; every other program writes blanks. */
    private const val BEGINNING = "{\"version\":\"1.0\","

    /** Return whether the file is the one that is made of the tokens. */
    fun isMadeOf(tokens: RankTokens, data: ByteArray): Boolean {
        val rest = Comparison(data)
        if (!rest.takes(BEGINNING)) return false
        val bos = LLAMA3_SPECIAL_TOKENS.first()
        val bosId = tokens.tokens.size
        return rest.takes("\"truncation\":null,\"padding\":null,\"added_tokens\":[") &&
            rest.takes(addedTokens(tokens.tokens.size)) &&
            rest.takes("],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",") &&
            rest.takes("\"pretokenizers\":[") &&
            rest.takes("{\"type\":\"Split\",\"pattern\":{\"Regex\":${quoted(Llama3Splitter.PATTERN)}},") &&
            rest.takes("\"behavior\":\"Isolated\",\"invert\":false},${byteLevel(false, true, false)}]},") &&
            rest.takes("\"post_processor\":{\"type\":\"Sequence\",\"processors\":[") &&
            rest.takes("${byteLevel(true, false, true)},") &&
            rest.takes("{\"type\":\"TemplateProcessing\",\"single\":[${part(bos, "A", 0)}],") &&
            rest.takes("\"pair\":[${part(bos, "A", 0)},${part(bos, "B", 1)}],\"special_tokens\":{") &&
            rest.takes("\"$bos\":{\"id\":\"$bos\",\"ids\":[$bosId],\"tokens\":[\"$bos\"]}}}]},") &&
            rest.takes("\"decoder\":${byteLevel(true, true, true)},\"model\":{\"type\":\"BPE\",") &&
            rest.takes("\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,") &&
            rest.takes("\"end_of_word_suffix\":null,") &&
            rest.takes("\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":true,\"vocab\":{") &&
            takesTokens(tokens, rest) && rest.takes("}}\n") && rest.isAtEnd
    }

    private fun addedTokens(first: Int): String =
        LLAMA3_SPECIAL_TOKENS.withIndex().joinToString(",") { (index, name) ->
            "{\"id\":${first + index},\"content\":\"$name\",\"single_word\":false,\"lstrip\":false," +
                "\"rstrip\":false,\"normalized\":false,\"special\":true}"
        }

    private fun byteLevel(addPrefixSpace: Boolean, trimOffsets: Boolean, useRegex: Boolean): String =
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":$addPrefixSpace," +
            "\"trim_offsets\":$trimOffsets,\"use_regex\":$useRegex}"

    private fun part(bos: String, text: String, type: Int): String =
        "{\"SpecialToken\":{\"id\":\"$bos\",\"type_id\":$type}}," +
            "{\"Sequence\":{\"id\":\"$text\",\"type_id\":$type}}"

    private fun takesTokens(tokens: RankTokens, rest: Comparison): Boolean {
        // Each with the quotes and the backslash that JSON wants, but without quotes around it.
        val spelt = tokens.tokens.map { token ->
            quoted(ByteLetters.spell(token)).run { substring(1, length - 1) }.encodeToByteArray()
        }
        for ((rank, token) in spelt.withIndex()) {
            val begin = if (rank == 0) "\"" else ",\""
            if (!(rest.takes(begin) && rest.takes(token) && rest.takes("\":$rank"))) return false
        }
        if (!rest.takes("},\"merges\":[")) return false
        val merges = tokens.merges.items
        for (at in 0 until tokens.merges.size step 3) {
            val begin = if (at == 0) "\"" else ",\""
            if (!(rest.takes(begin) && rest.takes(spelt[merges[at]]) && rest.takes(" "))) return false
            if (!(rest.takes(spelt[merges[at + 1]]) && rest.takes("\""))) return false
        }
        return rest.takes("]")
    }

    private fun quoted(text: String): String = JsonText(text).write()

    private class Comparison(private val data: ByteArray) {
        private var at = 0
        val isAtEnd: Boolean get() = at == data.size

        /** Go on behind a text, or say that the file goes on otherwise. */
        fun takes(text: String): Boolean = takes(text.encodeToByteArray())

        fun takes(expected: ByteArray): Boolean {
            if (expected.size > data.size - at) return false
            for (byte in expected) if (data[at++] != byte) return false
            return true
        }
    }
}
