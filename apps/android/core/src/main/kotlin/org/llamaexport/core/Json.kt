package org.llamaexport.core

/** A JSON value. `parseJson` makes one of text, [write] makes text of one. */
sealed interface Json

/**
 * An object; [entries] keep the order in which they were written.
 */
data class JsonObject(val entries: Map<String, Json>) : Json {
    constructor(vararg entries: Pair<String, Json>) : this(mapOf(*entries))

    /** Return the value of a key, or null where the key is absent. */
    operator fun get(key: String): Json? = entries[key]
}

/** An array. */
data class JsonArray(val items: List<Json>) : Json

/** A string. */
data class JsonText(val value: String) : Json

/**
 * A number, as the digits it was written with; so no reader rounds what another one wants exact.
 *
 * @throws IllegalArgumentException [text] is no JSON number
 */
data class JsonNumber(val text: String) : Json {
    constructor(value: Int) : this(value.toString())

    constructor(value: Long) : this(value.toString())

    /** NaN and infinity have no place in JSON. */
    constructor(value: Double) : this(value.toString())

    init {
        require(numberEnd(text, 0) == text.length) { "expected a JSON number, found $text" }
    }

    /** Whether it is written without fraction and exponent. */
    val isWhole: Boolean get() = text.none { it == '.' || it == 'e' || it == 'E' }

    /**
     * Return it as a whole number of 32 bits.
     *
     * @throws BadInput it has a fraction or an exponent, or is too large
     */
    fun int(): Int = text.toIntOrNull() ?: throw notWhole(32)

    /**
     * Return it as a whole number of 64 bits.
     *
     * @throws BadInput it has a fraction or an exponent, or is too large
     */
    fun long(): Long = text.toLongOrNull() ?: throw notWhole(64)

    /** Return the nearest finite float64; `parseJson` has refused what is larger than any. */
    fun double(): Double = text.toDouble()

    private fun notWhole(bits: Int) = BadInput("expected a whole number of $bits bits, found $text", "")
}

/** True or false. */
data class JsonBool(val value: Boolean) : Json

/** The value null. */
data object JsonNull : Json

/** Return what kind of value it is, for a message. */
val Json.kind: String
    get() = when (this) {
        is JsonObject -> "an object"
        is JsonArray -> "a list"
        is JsonText -> "a string"
        is JsonNumber -> if (isWhole) "a whole number" else "a number"
        is JsonBool -> "true or false"
        JsonNull -> "null"
    }

/** Return the value as JSON text without white space, which `parseJson` reads back as it was. */
fun Json.write(): String = StringBuilder().also { writeTo(it) }.toString()

private fun Json.writeTo(out: StringBuilder) {
    when (this) {
        is JsonObject -> {
            out.append('{')
            entries.entries.forEachIndexed { index, (key, value) ->
                if (index > 0) out.append(',')
                writeText(key, out)
                out.append(':')
                value.writeTo(out)
            }
            out.append('}')
        }
        is JsonArray -> {
            out.append('[')
            items.forEachIndexed { index, item ->
                if (index > 0) out.append(',')
                item.writeTo(out)
            }
            out.append(']')
        }
        is JsonText -> writeText(value, out)
        is JsonNumber -> out.append(text)
        is JsonBool -> out.append(value)
        JsonNull -> out.append("null")
    }
}

private fun writeText(text: String, out: StringBuilder) {
    out.append('"')
    for ((index, char) in text.withIndex()) {
        when {
            char == '"' || char == '\\' -> out.append('\\').append(char)
            char == '\n' -> out.append("\\n")
            char == '\r' -> out.append("\\r")
            char == '\t' -> out.append("\\t")
            // Half of a pair cannot be written as UTF-8, so it goes by its number.
            char < ' ' || char.isHalf(text, index) ->
                out.append("\\u").append(char.code.toString(16).padStart(4, '0'))
            else -> out.append(char)
        }
    }
    out.append('"')
}

private fun Char.isHalf(text: String, index: Int): Boolean = when (this) {
    in '\uD800'..'\uDBFF' -> text.getOrNull(index + 1) !in '\uDC00'..'\uDFFF'
    in '\uDC00'..'\uDFFF' -> text.getOrNull(index - 1) !in '\uD800'..'\uDBFF'
    else -> false
}

private operator fun CharRange.contains(char: Char?): Boolean = char != null && char in first..last
