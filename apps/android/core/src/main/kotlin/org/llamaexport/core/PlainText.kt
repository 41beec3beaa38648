package org.llamaexport.core

import java.time.LocalDateTime

private val DAYS = listOf("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
private val MONTHS = listOf(
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)
private const val SHORT_NAME = 3
private const val NOON = 12
private const val CENTURY = 100

/** What Python's `str.strip` takes away; other versions of Unicode have had other blanks. */
private const val BLANKS =
    "\t\n\u000B\u000C\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004" +
        "\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000"

/** Return a text without the white space at its ends, as Python's `str.strip` and Jinja's `trim` do. */
fun stripped(text: String): String = text.trim { it in BLANKS }

/** Return whether a text is blank, as Python sees it. */
fun isBlank(text: String): Boolean = text.all { it in BLANKS }

/** Return whether a text holds half of a surrogate pair, which is no character. */
internal fun hasHalfPair(text: String): Boolean = findHalfPair(text) >= 0

/** Return where the first half of a surrogate pair stands without its other half, or -1. */
internal fun findHalfPair(text: String): Int {
    var at = 0
    while (at < text.length) {
        val isPair = text[at].isHighSurrogate() && text.getOrNull(at + 1)?.isLowSurrogate() == true
        if (!isPair && text[at].isSurrogate()) return at
        at += if (isPair) 2 else 1
    }
    return -1
}

/** Return whether every word of a strftime format is one that [formatTime] knows. */
fun isTimeFormat(format: String): Boolean = try {
    formatTime(format, LocalDateTime.MIN)
    true
} catch (_: BadInput) {
    false
}

/**
 * Write a local time as Python's `strftime` does, with English names.
 *
 * @throws BadInput the format holds a word that not every platform writes alike
 */
fun formatTime(format: String, time: LocalDateTime): String {
    val written = StringBuilder()
    var at = 0
    while (at < format.length) {
        if (format[at] != '%') {
            written.append(format[at++])
            continue
        }
        written.append(timeWord(format.getOrNull(at + 1), time) ?: throw BadInput(
            "the time's format: expected words such as %d and %Y, found ${JsonText(format).write().take(80)}",
            "Export the model again, or update the app.",
        ))
        at += 2
    }
    return written.toString()
}

private fun timeWord(letter: Char?, time: LocalDateTime): String? = when (letter) {
    '%' -> "%"
    'a' -> DAYS[time.dayOfWeek.value - 1].take(SHORT_NAME)
    'A' -> DAYS[time.dayOfWeek.value - 1]
    'b' -> MONTHS[time.monthValue - 1].take(SHORT_NAME)
    'B' -> MONTHS[time.monthValue - 1]
    'd' -> padded(time.dayOfMonth)
    'H' -> padded(time.hour)
    'I' -> padded((time.hour + NOON - 1) % NOON + 1)
    'j' -> padded(time.dayOfYear, 3)
    'm' -> padded(time.monthValue)
    'M' -> padded(time.minute)
    'p' -> if (time.hour < NOON) "AM" else "PM"
    'S' -> padded(time.second)
    'y' -> padded(Math.floorMod(time.year, CENTURY))
    'Y' -> time.year.toString()
    else -> null
}

private fun padded(number: Int, digits: Int = 2): String = number.toString().padStart(digits, '0')
