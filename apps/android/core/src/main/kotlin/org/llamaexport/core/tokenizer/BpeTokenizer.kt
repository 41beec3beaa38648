package org.llamaexport.core.tokenizer

import org.llamaexport.core.IntList
import org.llamaexport.core.StreamDecoder
import org.llamaexport.core.Tokenizer

/**
 * Text to ids and back; what differs from file to file are its parts.
 *
 * @param added tokens that were added to the vocabulary
 * @param normalize what is done to a section of text before it is split; the first may be done otherwise
 * @param sections what turns text between added tokens into ids
 * @param decoding what turns ids into text
 */
internal class BpeTokenizer(
    override val vocabSize: Int,
    override val prefixIds: IntArray,
    private val added: AddedTokens,
    private val normalize: (text: String, isFirst: Boolean) -> String,
    private val sections: SectionModel,
    private val decoding: Decoding,
) : Tokenizer {
    override val specialTokens: Map<String, Int> = added.specialTokens()
    private val inText = finder(normalized = false) { it }
    private val inNormalized = finder(normalized = true) { normalize(it, true) }

    override fun encode(text: String, continues: Boolean): IntArray {
        requireCharacters(text)
        val out = IntList()
        val encoder = sections.begin()
        for (section in inText.cut(text)) {
            if (section.id != null) {
                out.add(section.id)
                continue
            }
            val isFirst = section.from == 0 && !continues
            for (part in inNormalized.cut(normalize(section.text, isFirst))) {
                when {
                    part.id != null -> out.add(part.id)
                    part.text.isNotEmpty() -> encoder.encode(part.text, isFirst && part.from == 0, out)
                }
            }
        }
        return out.toArray()
    }

    override fun tokenName(id: Int): String? = added.byId[id]?.name

    override fun decode(ids: IntArray): String {
        val stream = decoding.stream(continues = false)
        return buildString {
            for (id in ids) append(stream.push(id))
            append(stream.flush())
        }
    }

    override fun streamDecoder(continues: Boolean): StreamDecoder = decoding.stream(continues)

    private fun finder(normalized: Boolean, change: (String) -> String): AddedTokenFinder {
        val tokens = added.byId.filterValues { it.normalized == normalized }
        val texts = tokens.map { (id, token) -> change(token.name) to id }
        return AddedTokenFinder(texts, added, CharacterClasses.shared)
    }
}
