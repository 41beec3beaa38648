package org.llamaexport.core.tokenizer

import org.llamaexport.core.BundleError
import org.llamaexport.core.Json
import org.llamaexport.core.JsonArray
import org.llamaexport.core.JsonBool
import org.llamaexport.core.JsonNull
import org.llamaexport.core.JsonObject
import org.llamaexport.core.JsonText
import org.llamaexport.core.fields
import org.llamaexport.core.parseJson
import java.io.File

/**
 * What the small files beside a tokenizer say of its tokens.
 *
 * @property controlNames names that stand for control tokens, each once
 * @property added tokens that were added to the vocabulary, in the order of their ids
 */
internal class TokenSettings(val controlNames: List<String>, val added: List<AddedToken>) {
    companion object {
        private const val CONFIG_FILE = "tokenizer_config.json"
        private const val MAP_FILE = "special_tokens_map.json"
        private const val ADDED_FILE = "added_tokens.json"
        private const val ADDED = "added_tokens_decoder"
        private val NAMED = listOf(
            "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
        )
        private val LISTED = listOf("additional_special_tokens", "extra_special_tokens")

        /** A tokenizer of which nothing is said beside its file. */
        val none = TokenSettings(emptyList(), emptyList())

        /**
         * Read the files of a folder; those of older versions count for what the newest does not say.
         *
         * @throws BundleError a token is spelled in no way that is known
         * @throws BadInput one of the files is no JSON
         */
        fun read(folder: File): TokenSettings {
            val keys = LinkedHashMap<String, Json>()
            keys += readEntries(File(folder, MAP_FILE)).filterKeys { it in NAMED || it in LISTED }
            val own = readEntries(File(folder, CONFIG_FILE))
            val added = readEntries(File(folder, ADDED_FILE))
            if (added.isNotEmpty() && ADDED !in own) {
                keys[ADDED] = JsonObject(added.entries.associate { (name, id) -> "$id" to namedBy(name) })
            }
            return of(keys + own, CONFIG_FILE)
        }

        private fun namedBy(name: String): Json = JsonObject("content" to JsonText(name))

        private fun of(keys: Map<String, Json>, where: String): TokenSettings {
            val named = NAMED.mapNotNull { key -> keys[key]?.let { name(it, "$where: $key") } }
            val listed = LISTED.flatMap { key -> names(keys[key], "$where: $key") }
            val added = (keys[ADDED] as? JsonObject)?.entries.orEmpty().map { (id, token) ->
                (id.toIntOrNull() ?: 0) to added(token, "$where: $ADDED: $id")
            }
            return TokenSettings((named + listed).distinct(), added.sortedBy { it.first }.map { it.second })
        }

        private fun name(value: Json, where: String): String? {
            val found = if (value is JsonObject) value["content"] ?: JsonNull else value
            if (found == JsonNull || found == JsonText("")) return null
            return checkedName((found as? JsonText)?.value, where)
        }

        private fun names(value: Json?, where: String): List<String> {
            val values = if (value is JsonObject) value.entries.values else (value as? JsonArray)?.items
            return values.orEmpty().mapNotNull { name(it, where) }
        }

        private fun added(value: Json, where: String): AddedToken {
            val token = value as? JsonObject ?: JsonObject("content" to value)
            val flag = { key: String -> token[key] == JsonBool(true) }
            return AddedToken(
                checkedName((token["content"] as? JsonText)?.value, where),
                singleWord = flag("single_word"),
                takesBlanksBefore = flag("lstrip"),
                takesBlanksAfter = flag("rstrip"),
                normalized = flag("normalized"),
                isSpecial = flag("special"),
            )
        }

        private fun readEntries(file: File): Map<String, Json> {
            if (!file.isFile) return emptyMap()
            val text = textOf(readTokenizerFile(file), file.name)
            return parseJson(text, file.name).fields(file.name).json.entries
        }
    }
}

/** Return the name of an added token. @throws BundleError it can be none */
internal fun checkedName(name: String?, where: String): String {
    // What has no UTF-8 comes back from it as another text.
    val isWhole = name != null && name.encodeToByteArray().decodeToString() == name
    if (name != null && isWhole && name.length in 1..MOST_NAME_CHARS) return name
    val found = if (name == null) "none" else shown(name)
    throw BundleError(
        "$where: expected a token's name of 1 to $MOST_NAME_CHARS characters, found $found",
        GET_ANOTHER,
    )
}

private const val MOST_NAME_CHARS = 256
