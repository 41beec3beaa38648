package org.llamaexport.app

/**
 * Cuts an answer that grows into sentences, so that a screen reader speaks those and not tokens.
 *
 * @param say told each whole sentence, or several at once
 */
class SentenceSpeaker(private val say: (String) -> Unit) {
    private var said = 0

    /** Hear the answer so far. */
    fun update(text: String) {
        if (text.length < said) said = 0
        val end = lastEnd(text)
        if (end > said) {
            say(text.substring(said, end).trim())
            said = end
        }
    }

    /** Hear that the answer is whole. */
    fun end(text: String) {
        val rest = text.drop(said).trim()
        said = 0
        if (rest.isNotEmpty()) say(rest)
    }

    /** Return where the last whole sentence ends: a mark with a blank behind it, or a line. */
    private fun lastEnd(text: String): Int {
        for (at in text.length - 1 downTo said) {
            val char = text[at]
            val isEnd = char == '\n' || char in WIDE_MARKS ||
                (char == ' ' && at > 0 && text[at - 1] in MARKS)
            if (isEnd) return at + 1
        }
        return said
    }

    private companion object {
        const val MARKS = ".!?:;…؟۔।"
        const val WIDE_MARKS = "。！？"
    }
}
