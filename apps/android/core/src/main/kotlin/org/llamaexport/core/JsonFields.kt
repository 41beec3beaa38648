package org.llamaexport.core

/**
 * A JSON object with the place where it stands, so that what is wrong in it is named whole.
 *
 * @property json the object
 * @property where a file's name and the keys on the way, such as `manifest.json: model`
 */
class JsonFields(val json: JsonObject, val where: String) {
    /** Return the text of a key. @throws BadInput it is absent or no string */
    fun text(key: String): String = (required(key) as? JsonText)?.value ?: throw wrong(key, "a string")

    /** Return the whole number of a key, of 32 bits. @throws BadInput it is absent or none */
    fun int(key: String): Int =
        (required(key) as? JsonNumber)?.text?.toIntOrNull() ?: throw wrong(key, "a whole number")

    /** Return the whole number of a key, of 64 bits. @throws BadInput it is absent or none */
    fun long(key: String): Long =
        (required(key) as? JsonNumber)?.text?.toLongOrNull() ?: throw wrong(key, "a whole number")

    /** Return the number of a key. @throws BadInput it is absent or none */
    fun double(key: String): Double =
        (required(key) as? JsonNumber)?.double() ?: throw wrong(key, "a number")

    /** Return whether a key is true. @throws BadInput it is absent, or neither true nor false */
    fun bool(key: String): Boolean =
        (required(key) as? JsonBool)?.value ?: throw wrong(key, "true or false")

    /** Return the list of a key. @throws BadInput it is absent or none */
    fun list(key: String): List<Json> =
        (required(key) as? JsonArray)?.items ?: throw wrong(key, "a list")

    /** Return the object of a key. @throws BadInput it is absent or none */
    fun fields(key: String): JsonFields =
        JsonFields(required(key) as? JsonObject ?: throw wrong(key, "an object"), at(key))

    /** Return whether a key is there with another value than null. */
    operator fun contains(key: String): Boolean = json[key].let { it != null && it != JsonNull }

    /** Return a value of a key, whatever it is. @throws BadInput it is absent */
    fun required(key: String): Json =
        json[key] ?: throw BadInput("$where: the key $key is missing", HINT)

    /** Return the place of a key, for a message. */
    fun at(key: String): String = "$where: $key"

    private fun wrong(key: String, expected: String): BadInput {
        val found = required(key)
        val shown = if (found is JsonNumber) found.text.take(SHOWN_CHARS) else found.kind
        return BadInput("${at(key)}: expected $expected, found $shown", HINT)
    }

    private companion object {
        const val HINT = "Get the file again, or a version of this app that knows it."
        const val SHOWN_CHARS = 40
    }
}

/** Return a value as an object with its place. @throws BadInput it is another kind of value */
fun Json.fields(where: String): JsonFields {
    if (this !is JsonObject) throw BadInput("$where: expected an object, found $kind", "")
    return JsonFields(this, where)
}
