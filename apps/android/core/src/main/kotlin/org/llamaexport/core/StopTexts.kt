package org.llamaexport.core

/**
 * Finds the texts that end an answer, in pieces of text as they come.
 *
 * Nothing is released that may be the beginning of one of them.
 *
 * @param stops texts of at least one character
 * @throws BadInput one of them is empty
 */
class StopTexts(private val stops: List<String>) {
    private var held = ""

    init {
        if (stops.any { it.isEmpty() }) {
            throw BadInput("stop: expected texts of at least one character, found \"\"", "Take it out.")
        }
    }

    /** Whether a stop text was found; nothing is released after it. */
    var isFound: Boolean = false
        private set

    /** Take in new text and return what can be shown; it ends before the first stop text. */
    fun release(text: String): String {
        if (isFound) return ""
        if (stops.isEmpty()) return text
        held += text
        val begin = stops.map { held.indexOf(it) }.filter { it >= 0 }.minOrNull()
        isFound = begin != null
        val cut = begin ?: (held.length - stops.maxOf(::begunLength))
        val shown = held.substring(0, cut)
        held = if (isFound) "" else held.substring(cut)
        return shown
    }

    /** Return what was held back; the text has ended without a stop text. */
    fun rest(): String = held.also { held = "" }

    /** Return how many letters of a stop text the held text ends with, less than all. */
    private fun begunLength(stop: String): Int =
        (minOf(stop.length - 1, held.length) downTo 1).firstOrNull { held.endsWith(stop.take(it)) } ?: 0
}
