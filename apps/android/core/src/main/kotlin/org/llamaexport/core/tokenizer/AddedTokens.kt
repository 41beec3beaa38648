package org.llamaexport.core.tokenizer

/**
 * A token that was added to a vocabulary, and which text becomes it.
 *
 * @property name its text
 * @property singleWord whether it is found only where no letter touches it
 * @property takesBlanksBefore whether blanks before it belong to it
 * @property takesBlanksAfter whether blanks after it belong to it
 * @property normalized whether it is looked for in normalised text
 * @property isSpecial whether it is a control token, which typed text never becomes
 */
internal data class AddedToken(
    val name: String,
    val singleWord: Boolean,
    val takesBlanksBefore: Boolean,
    val takesBlanksAfter: Boolean,
    val normalized: Boolean,
    val isSpecial: Boolean,
)

/**
 * The tokens that were added to a vocabulary, with the ids that the library `tokenizers` gives them.
 *
 * @param modelIds ids of the vocabulary's own tokens
 */
internal class AddedTokens(private val modelIds: Map<String, Int>) {
    private val ids = HashMap<String, Int>()
    private val tokens = LinkedHashMap<Int, AddedToken>()
    private val specialNames = HashSet<String>()
    private var highest = -1

    /** Tokens by id. */
    val byId: Map<Int, AddedToken> get() = tokens

    /** Add tokens; one that is known already counts as it was added last. */
    fun add(added: List<AddedToken>) {
        added.filter { it.isSpecial }.forEach { specialNames.add(it.name) }
        for (token in added) {
            if (tokens[ids[token.name]] == token) continue
            val id = ids[token.name] ?: modelIds[token.name] ?: nextId()
            highest = maxOf(highest, id)
            ids[token.name] = id
            tokens[id] = token
        }
    }

    /** The library numbers what the vocabulary has not, whatever id the file gives it. */
    private fun nextId(): Int = maxOf(highest + 1, modelIds.size)

    /** Return whether text never becomes a token. */
    fun isSpecial(name: String): Boolean = name in specialNames

    /** Return ids of the control tokens by name, in the order of the ids. */
    fun specialTokens(): Map<String, Int> =
        tokens.toSortedMap().filterValues { it.isSpecial }.entries.associate { it.value.name to it.key }
}

/** A stretch of text between added tokens, or the id of one. */
internal class Section(val text: String, val from: Int, val id: Int?)

/**
 * Finds added tokens in a text, the longest first where several begin at one place.
 *
 * Control tokens are found too, and left as text, because no other token begins inside of one.
 *
 * @param tokens ids of the tokens, with the text to look for
 */
internal class AddedTokenFinder(
    tokens: List<Pair<String, Int>>,
    private val added: AddedTokens,
    private val classes: CharacterClasses,
) {
    private val byFirst: Map<Char, List<Pair<String, Int>>> =
        tokens.filter { it.first.isNotEmpty() }.sortedByDescending { it.first.length }.groupBy { it.first[0] }
    private val findsAny = tokens.any { (_, id) -> !added.isSpecial(added.byId.getValue(id).name) }

    /** Cut a text at the tokens. */
    fun cut(text: String): List<Section> {
        if (text.isEmpty() || !findsAny) return listOf(Section(text, 0, null))
        val sections = ArrayList<Section>()
        var kept = 0
        var at = 0
        while (at < text.length) {
            val match = byFirst[text[at]]?.find { text.startsWith(it.first, at) }
            if (match == null) {
                at += 1
                continue
            }
            val end = at + match.first.length
            val token = added.byId.getValue(match.second)
            if (!added.isSpecial(token.name)) {
                val begin = if (token.takesBlanksBefore) afterBlanksBefore(text, at) else at
                val after = if (token.takesBlanksAfter) afterBlanks(text, end) else end
                if (kept < begin) sections.add(Section(text.substring(kept, begin), kept, null))
                sections.add(Section("", begin, match.second))
                kept = after
            }
            at = end
        }
        if (kept < text.length) sections.add(Section(text.substring(kept), kept, null))
        return sections
    }

    private fun afterBlanksBefore(text: String, end: Int): Int {
        var at = end
        while (at > 0 && classes.isBlank(text[at - 1])) at -= 1
        return at
    }

    private fun afterBlanks(text: String, from: Int): Int {
        var at = from
        while (at < text.length && classes.isBlank(text[at])) at += 1
        return at
    }
}
