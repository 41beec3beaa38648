package org.llamaexport.core

/** Largest length of a text that [parseJson] takes: a tokenizer.json of 256,000 tokens has 33 million. */
const val MOST_JSON_CHARS: Int = 128 * 1024 * 1024

/** Deepest nesting that [parseJson] takes; tokenizer.json, the deepest that is read, has 9 levels. */
const val MOST_JSON_LEVELS: Int = 64

private const val MOST_DIGITS = 40
private const val SHOWN_CHARS = 80

/**
 * Parse one JSON value of somebody else's, in time linear in its length.
 *
 * What readers disagree about is refused: a key given twice, NaN and infinity, numbers that no
 * field has, nesting that no format needs. So is whatever the JSON standard does not have.
 *
 * @param where what is read, for the message: a file's name or a server's address
 * @throws BadInput it is no JSON, or no JSON that can be trusted
 */
fun parseJson(text: String, where: String): Json = JsonParser(text, where).parse()

private class JsonParser(private val text: String, private val where: String) {
    private var at = 0
    private var levels = 0

    fun parse(): Json {
        if (text.length > MOST_JSON_CHARS) fail("it is longer than $MOST_JSON_CHARS characters")
        val value = value()
        if (at < text.length) failAt("expected the end")
        return value
    }

    private fun value(): Json {
        skipSpace()
        val value = when (text.getOrNull(at)) {
            '{' -> nested { members() }
            '[' -> nested { items() }
            '"' -> JsonText(string())
            't' -> word("true", JsonBool(true))
            'f' -> word("false", JsonBool(false))
            'n' -> word("null", JsonNull)
            else -> number()
        }
        skipSpace()
        return value
    }

    private inline fun nested(read: () -> Json): Json {
        levels += 1
        if (levels > MOST_JSON_LEVELS) fail("it is nested deeper than $MOST_JSON_LEVELS levels")
        at += 1
        skipSpace()
        return read().also { levels -= 1 }
    }

    private fun members(): JsonObject {
        val entries = LinkedHashMap<String, Json>()
        if (take('}')) return JsonObject(entries)
        while (true) {
            skipSpace()
            if (text.getOrNull(at) != '"') failAt("expected a key in quotes")
            val key = string()
            skipSpace()
            if (!take(':')) failAt("expected ':' after a key")
            if (entries.put(key, value()) != null) {
                fail("the key ${JsonText(key).write().take(SHOWN_CHARS)} is given twice")
            }
            if (take('}')) return JsonObject(entries)
            if (!take(',')) failAt("expected ',' or '}'")
        }
    }

    private fun items(): JsonArray {
        val items = ArrayList<Json>()
        if (take(']')) return JsonArray(items)
        while (true) {
            items.add(value())
            if (take(']')) return JsonArray(items)
            if (!take(',')) failAt("expected ',' or ']'")
        }
    }

    private fun word(word: String, value: Json): Json {
        if (!text.startsWith(word, at)) failAt("expected a value")
        at += word.length
        return value
    }

    private fun number(): JsonNumber {
        val end = numberEnd(text, at)
        if (end < 0) failAt("expected a value")
        val digits = text.substring(at, end)
        val number = JsonNumber(digits)
        if (number.isWhole && digits.length > MOST_DIGITS) {
            fail("a whole number of ${digits.length} digits is too large")
        }
        if (number.double().isInfinite()) fail("${digits.take(SHOWN_CHARS)} is too large for a number")
        at = end
        return number
    }

    private fun string(): String {
        at += 1
        // Most strings hold no escape and are one piece of the text.
        val begin = at
        while (at < text.length && text[at] != '"' && text[at] != '\\' && text[at] >= ' ') at += 1
        if (text.getOrNull(at) == '"') return text.substring(begin, at++)
        val read = StringBuilder().append(text, begin, at)
        while (true) {
            val char = text.getOrNull(at) ?: failAt("expected '\"' at the end of a string")
            at += 1
            when {
                char == '"' -> return read.toString()
                char == '\\' -> read.append(escaped())
                char < ' ' -> { at -= 1; failAt("expected no control character in a string") }
                else -> read.append(char)
            }
        }
    }

    private fun escaped(): Char {
        val char = text.getOrNull(at)
        val index = if (char == null) -1 else ESCAPES.indexOf(char)
        if (index >= 0) {
            at += 1
            return ESCAPED[index]
        }
        if (char != 'u') failAt("expected an escape such as \\n")
        val digits = text.substring(minOf(at + 1, text.length), minOf(at + 5, text.length))
        if (digits.length < 4 || digits.any { it.code > 0x7F || it.digitToIntOrNull(16) == null }) {
            failAt("expected four hexadecimal digits after \\u")
        }
        at += 5
        return digits.toInt(16).toChar()
    }

    private fun take(char: Char): Boolean {
        if (text.getOrNull(at) != char) return false
        at += 1
        return true
    }

    private fun skipSpace() {
        while (at < text.length && text[at] in SPACE) at += 1
    }

    private fun failAt(expected: String): Nothing {
        val found = if (at >= text.length) "the end" else JsonText(text.substring(at).take(1)).write()
        val line = (0 until at).count { text[it] == '\n' } + 1
        val column = at - text.lastIndexOf('\n', at - 1)
        fail("$expected in line $line, character $column, found $found")
    }

    private fun fail(reason: String): Nothing =
        throw BadInput("$where is not valid JSON: $reason", "Get the file again from where it came from.")

    private companion object {
        const val SPACE = " \t\n\r"
        const val ESCAPES = "\"\\/bfnrt"
        const val ESCAPED = "\"\\/\b\u000C\n\r\t"
    }
}

/** Return where the JSON number ends that begins at [from], or -1 where there is none. */
internal fun numberEnd(text: String, from: Int): Int {
    val first = if (text.getOrNull(from) == '-') from + 1 else from
    var end = afterDigits(text, first)
    if (end == first || (text[first] == '0' && end > first + 1)) return -1
    if (text.getOrNull(end) == '.') {
        val fraction = end + 1
        end = afterDigits(text, fraction)
        if (end == fraction) return -1
    }
    if (text.getOrNull(end) == 'e' || text.getOrNull(end) == 'E') {
        val sign = text.getOrNull(end + 1)
        val exponent = if (sign == '+' || sign == '-') end + 2 else end + 1
        end = afterDigits(text, exponent)
        if (end == exponent) return -1
    }
    return end
}

private fun afterDigits(text: String, from: Int): Int {
    var at = from
    while (at < text.length && text[at] in '0'..'9') at += 1
    return at
}
