package org.llamaexport.core

/** Text to token ids and back, as the model was trained with them. */
interface Tokenizer {
    /** The largest id and one; ids between may mean nothing. */
    val vocabSize: Int

    /** Ids of the special tokens by their names, such as `<|eot_id|>`. */
    val specialTokens: Map<String, Int>

    /** Ids that stand before every text, such as the one for the beginning of text; often one. */
    val prefixIds: IntArray

    /**
     * Encode text and nothing but text: a special token that a user typed is encoded letter by
     * letter, and nothing is added.
     *
     * @param continues whether a special token or other text comes before. Some SentencePiece
     *     vocabularies put a blank before a text at the very beginning and nowhere else
     * @return token ids `[n]`; none for an empty text
     * @throws PromptError the text holds half of a surrogate pair
     */
    fun encode(text: String, continues: Boolean = false): IntArray

    /** Return the name of a special or added token, or null where an id is a piece of text, or none. */
    fun tokenName(id: Int): String?

    /**
     * Decode ids; bytes that are no UTF-8 become U+FFFD, as in Python, and special tokens their names.
     *
     * @param ids token ids `[n]`
     * @throws PromptError an id is outside the vocabulary
     */
    fun decode(ids: IntArray): String

    /**
     * Begin to decode ids one after the other.
     *
     * @param continues whether other text comes before. SentencePiece puts a blank before a text, which
     *     falls away at its very beginning and nowhere else
     */
    fun streamDecoder(continues: Boolean = false): StreamDecoder
}

/** Decodes ids one by one, and holds an incomplete character back until its last byte comes. */
interface StreamDecoder {
    /**
     * Append an id and return the text that is complete now; often one word, sometimes none.
     *
     * @throws PromptError the id is outside the vocabulary
     */
    fun push(id: Int): String

    /** Return what was held back, with U+FFFD for what never came, and begin anew. */
    fun flush(): String
}
