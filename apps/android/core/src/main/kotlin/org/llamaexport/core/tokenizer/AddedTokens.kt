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

    /**
     * Add tokens at once; one that is known already counts as it was added last.
     *
     * The library numbers what the vocabulary has not, whatever id the file gives it: from behind all
     * that it knew before this call, or from the vocabulary's number of tokens.
     */
    fun add(added: List<AddedToken>) {
        var next = maxOf(modelIds.size, highest + 1)
        added.filter { it.isSpecial }.forEach { specialNames.add(it.name) }
        for (token in added) {
            if (tokens[ids[token.name]] == token) continue
            val id = ids[token.name] ?: modelIds[token.name] ?: next++
            ids[token.name] = id
            tokens[id] = token
            highest = maxOf(highest, id)
        }
    }

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
 * @param tokens the text to look for, which may be empty and then is nowhere, and the id of its token
 */
internal class AddedTokenFinder(
    tokens: List<Pair<String, Int>>,
    private val added: AddedTokens,
    private val classes: CharacterClasses,
) {
    private val names = SortedNames(tokens.filter { it.first.isNotEmpty() })
    private val findsAny = tokens.any { (_, id) -> !added.isSpecial(added.byId.getValue(id).name) }

    /** Cut a text at the tokens. */
    fun cut(text: String): List<Section> {
        if (text.isEmpty() || !findsAny) return listOf(Section(text, 0, null))
        val sections = ArrayList<Section>()
        var kept = 0
        var at = 0
        while (at < text.length) {
            val match = names.longestAt(text, at)
            if (match < 0) {
                at += 1
                continue
            }
            val id = names.idAt(match)
            val token = added.byId.getValue(id)
            val end = at + names.lengthAt(match)
            // What an earlier token has taken is no longer before this one.
            val begin = if (token.takesBlanksBefore) maxOf(kept, afterBlanksBefore(text, at)) else at
            val after = if (token.takesBlanksAfter) afterBlanks(text, end) else end
            if (begin < after && !added.isSpecial(token.name)) {
                if (kept < begin) sections.add(Section(text.substring(kept, begin), kept, null))
                sections.add(Section("", begin, id))
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

/**
 * Texts in order, of which the longest at a place is found in as many halvings as it has letters,
 * however many begin alike.
 *
 * @param entries texts of at least one letter, and an id of each; of equal ones the first counts
 */
private class SortedNames(entries: List<Pair<String, Int>>) {
    private val sorted = entries.distinctBy { it.first }.sortedBy { it.first }

    /** Return the place of the longest text that stands at [from], or -1. */
    fun longestAt(text: String, from: Int): Int {
        // All from low to high begin as the text does, as far as it was looked at.
        var low = 0
        var high = sorted.size
        var found = -1
        var depth = 0
        while (low < high) {
            if (lengthAt(low) == depth) found = low++
            if (from + depth == text.length) break
            val unit = text[from + depth]
            low = firstNot(low, high) { sorted[it].first[depth] < unit }
            high = firstNot(low, high) { sorted[it].first[depth] == unit }
            depth += 1
        }
        return found
    }

    fun lengthAt(place: Int): Int = sorted[place].first.length

    fun idAt(place: Int): Int = sorted[place].second

    /** Return the first place for which it is not so; it is so for none after it. */
    private inline fun firstNot(from: Int, to: Int, isSo: (Int) -> Boolean): Int {
        var low = from
        var high = to
        while (low < high) {
            val middle = (low + high) / 2
            if (isSo(middle)) low = middle + 1 else high = middle
        }
        return low
    }
}
