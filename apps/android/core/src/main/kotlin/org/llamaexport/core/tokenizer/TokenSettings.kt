package org.llamaexport.core.tokenizer

import org.llamaexport.core.BundleError
import org.llamaexport.core.Json
import org.llamaexport.core.JsonBool
import org.llamaexport.core.JsonFields
import org.llamaexport.core.JsonNull
import org.llamaexport.core.JsonObject
import org.llamaexport.core.JsonText
import org.llamaexport.core.fields
import org.llamaexport.core.hasHalfPair
import org.llamaexport.core.parseJson
import java.io.File

/**
 * What the tokenizer_config.json beside a tokenizer says of its tokens.
 *
 * An export writes into it what older files said in other places.
 *
 * @property controlNames names that stand for control tokens, each once
 * @property added tokens that were added to the vocabulary, in the order of their ids
 * @property isLegacy whether SentencePiece's text behind a token begins like a text of its own
 */
internal class TokenSettings(
    val controlNames: List<String>,
    val added: List<AddedToken>,
    val isLegacy: Boolean = true,
) {
    companion object {
        private const val CONFIG_FILE = "tokenizer_config.json"
        private const val ADDED = "added_tokens_decoder"
        private val NAMED = listOf(
            "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
        )
        private val LISTED = listOf("additional_special_tokens", "extra_special_tokens")

        /**
         * Read the file of a bundle; where there is none, nothing is said.
         *
         * @throws BundleError a token is spelled in no way that is known, or there are too many
         * @throws org.llamaexport.core.BadInput the file is no JSON, or a key is of another kind
         */
        fun read(folder: File): TokenSettings {
            val file = File(folder, CONFIG_FILE)
            if (!file.isFile) return TokenSettings(emptyList(), emptyList())
            return of(parseJson(textOf(readTokenizerFile(file), file.name), file.name).fields(file.name))
        }

        private fun of(keys: JsonFields): TokenSettings {
            val named = NAMED.mapNotNull { key -> keys.json[key]?.let { name(it, keys.at(key)) } }
            val listed = LISTED.flatMap { names(keys, it) }
            val tokens = if (ADDED in keys) keys.fields(ADDED) else JsonFields(JsonObject(), keys.at(ADDED))
            val added = tokens.json.entries.map { (id, token) ->
                idOf(id, tokens.where) to added(token, tokens.at(shown(id)))
            }
            requireCount(listed.size, keys.where)
            requireCount(added.size, tokens.where)
            return TokenSettings(
                (named + listed).distinct(),
                added.sortedBy { it.first }.map { it.second },
                isLegacy = keys.json["legacy"] != JsonBool(false),
            )
        }

        private fun idOf(id: String, where: String): Int = id.toIntOrNull()?.takeIf { it >= 0 }
            ?: throw BundleError("$where: expected ids of tokens as keys, found ${shown(id)}", GET_ANOTHER)

        private fun name(value: Json, where: String): String? {
            val found = if (value is JsonObject) value["content"] ?: JsonNull else value
            if (found == JsonNull || found == JsonText("")) return null
            return checkedName((found as? JsonText)?.value, where)
        }

        private fun names(keys: JsonFields, key: String): List<String> {
            val values = when (val found = keys.json[key].orNull()) {
                null -> emptyList()
                is JsonObject -> found.entries.values
                else -> keys.list(key)
            }
            return values.mapNotNull { name(it, keys.at(key)) }
        }

        private fun added(value: Json, where: String): AddedToken {
            val token = JsonFields(value as? JsonObject ?: JsonObject("content" to value), where)
            val flag = { key: String -> key in token && token.bool(key) }
            return AddedToken(
                checkedName((token.json["content"] as? JsonText)?.value, where),
                singleWord = flag("single_word"),
                takesBlanksBefore = flag("lstrip"),
                takesBlanksAfter = flag("rstrip"),
                normalized = flag("normalized"),
                isSpecial = flag("special"),
            )
        }
    }
}

/** Return the name of an added token. @throws BundleError it can be none */
internal fun checkedName(name: String?, where: String): String {
    if (name != null && name.length in 1..MOST_NAME_CHARS && !hasHalfPair(name)) return name
    val found = if (name == null) "none" else shown(name)
    throw BundleError(
        "$where: expected a token's name of 1 to $MOST_NAME_CHARS characters, found $found",
        GET_ANOTHER,
    )
}

/** Refuse more added tokens than any model has. */
internal fun requireCount(added: Int, where: String) {
    if (added <= MOST_ADDED) return
    throw BundleError("$where: it has $added added tokens, expected at most $MOST_ADDED", GET_ANOTHER)
}

private const val MOST_ADDED = 1 shl 15
private const val MOST_NAME_CHARS = 256
