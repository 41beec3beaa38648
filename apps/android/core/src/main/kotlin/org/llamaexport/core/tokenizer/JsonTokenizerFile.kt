package org.llamaexport.core.tokenizer

import org.llamaexport.core.BundleError
import org.llamaexport.core.Json
import org.llamaexport.core.JsonArray
import org.llamaexport.core.JsonFields
import org.llamaexport.core.JsonNull
import org.llamaexport.core.JsonNumber
import org.llamaexport.core.JsonObject
import org.llamaexport.core.JsonText
import org.llamaexport.core.fields
import org.llamaexport.core.hasHalfPair
import org.llamaexport.core.parseJson

/**
 * Makes a tokenizer of a `tokenizer.json`, as far as it is a BPE of the kinds that Llamas have.
 *
 * What it does not do exactly as the library `tokenizers` is refused by name.
 *
 * @param where name of the file, for messages
 */
internal class JsonTokenizerFile private constructor(
    private val root: JsonFields,
    private val settings: TokenSettings,
    private val where: String,
) {
    private val steps = PipelineSteps(where)
    private val model = root.fields("model").also { requireBpe(it) }
    private val vocabulary: Map<String, Int> = readVocabulary()
    private val highestId = vocabulary.values.maxOrNull() ?: -1
    private val added = AddedTokens(vocabulary)

    private fun tokenizer(): BpeTokenizer {
        addTokens()
        val names = arrayOfNulls<String>(maxOf(highestId, added.byId.keys.maxOrNull() ?: -1) + 1)
        if (names.isEmpty()) fail("it has no tokens")
        for ((token, id) in vocabulary) {
            names[id]?.let { fail("the tokens ${shown(it)} and ${shown(token)} have one id") }
            names[id] = token
        }
        for ((id, token) in added.byId) names[id] = token.name
        val decoder = steps.decoder(root.json["decoder"])
        return BpeTokenizer(
            vocabSize = names.size,
            prefixIds = steps.prefixIds(root.json["post_processor"]),
            added = added,
            normalize = steps.normalizer(root.json["normalizer"], settings.isLegacy),
            sections = sections(),
            decoding = when (decoder) {
                null -> ByteDecoding(names.map { it?.run { ByteLetters.bytesOf(it) ?: encodeToByteArray() } })
                else -> PieceDecoding(names.asList(), decoder)
            },
        )
    }

    private fun readVocabulary(): Map<String, Int> {
        val entries = model.fields("vocab").json.entries
        if (entries.size > MOST_TOKENS) fail("it has ${entries.size} tokens, expected at most $MOST_TOKENS")
        return entries.mapValues { (token, id) ->
            if (token.length > MOST_TOKEN_CHARS) fail("it has a token of ${token.length} characters")
            if (hasHalfPair(token)) fail("it has a token with half of a surrogate pair, ${shown(token)}")
            (id as? JsonNumber)?.text?.toIntOrNull()?.takeIf { it in 0 until MOST_IDS }
                ?: fail("the token ${shown(token)} has no id that a token can have")
        }
    }

    private fun requireBpe(model: JsonFields) {
        val type = (model.json["type"] as? JsonText)?.value
        if (type != "BPE") refuse("a model of type ${type ?: "unknown"}", "BPE")
        if (model.json["dropout"].orNull() != null) refuse("dropout", "none")
        for (key in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
            val found = model.json[key].orNull()
            if (found != null && found != JsonText("")) refuse("the key $key", "none")
        }
    }

    private fun addTokens() {
        val given = if ("added_tokens" in root) root.list("added_tokens") else emptyList()
        requireCount(given.size, where)
        added.add(given.map { each ->
            val token = each.fields("$where: added_tokens")
            AddedToken(
                checkedName(token.text("content"), "$where: added_tokens"),
                token.bool("single_word"),
                token.bool("lstrip"),
                token.bool("rstrip"),
                token.bool("normalized"),
                token.bool("special"),
            )
        })
        settings.added.forEach { added.add(listOf(it)) }
        added.add(settings.controlNames.map { AddedToken(it, false, false, false, false, isSpecial = true) })
        val found = added.byId.values.find { it.singleWord && !added.isSpecial(it.name) }
        if (found != null) refuse("the added token ${shown(found.name)}, found as a single word only", "none")
    }

    private fun sections(): SectionModel {
        val merges = merges()
        val takesWords = flag("ignore_merges")
        val name = (model.json["unk_token"] as? JsonText)?.value
        val unknownId = name?.let { vocabulary[it] ?: fail("its unk_token ${shown(it)} is no token") }
        val unknown = Unknown(unknownId ?: -1, flag("fuse_unk"))
        val splitters = steps.splitters(root.json["pre_tokenizer"])
        if (splitters != null) {
            val tokens = arrayOfNulls<ByteArray>(highestId + 1)
            for ((token, id) in vocabulary) tokens[id] = ByteLetters.bytesOf(token)
            val table = ByteTable(tokens.asList())
            val byteIds = IntArray(256) { table.find(byteArrayOf(it.toByte()), 0, 1) }
            return ByteLevelModel(splitters, byteIds, merges, table.takeIf { takesWords }, unknown)
        }
        return PieceModel(
            CharacterIds(vocabulary),
            if (flag("byte_fallback")) IntArray(256) { vocabulary[bytePiece(it)] ?: -1 } else null,
            merges,
            vocabulary.takeIf { takesWords },
            unknown,
            steps.metaspace(root.json["pre_tokenizer"]),
        )
    }

    private fun merges(): MergeTable {
        val given = model.list("merges")
        val table = MergeTable(given.size)
        given.forEachIndexed { rank, merge ->
            val (left, right) = pairOf(merge)
            // Some converters wrote these; typed text would become the control token by them.
            if (!added.isSpecial(left + right)) table.put(idOf(left), idOf(right), rank, idOf(left + right))
        }
        return table
    }

    private fun pairOf(merge: Json): List<String> {
        val parts = when (merge) {
            is JsonText -> merge.value.split(' ')
            is JsonArray -> merge.items.map { (it as? JsonText)?.value.orEmpty() }
            else -> emptyList()
        }
        if (parts.size != 2) fail("a merge must be two tokens, found ${parts.size}")
        return parts
    }

    private fun idOf(token: String): Int =
        vocabulary[token] ?: fail("a merge has ${shown(token)}, which is no token")

    private fun flag(key: String): Boolean = key in model && model.bool(key)

    private fun bytePiece(byte: Int): String = "<0x${byte.toString(16).uppercase().padStart(2, '0')}>"

    private fun refuse(found: String, expected: String): Nothing = steps.refuse("model", found, expected)

    private fun fail(reason: String): Nothing = throw BundleError("$where: $reason", GET_ANOTHER)

    companion object {
        private const val MOST_TOKENS = 1 shl 20

        /** Tables are as long as the largest id, and gaps are few. */
        private const val MOST_IDS = 2 * MOST_TOKENS
        private const val MOST_TOKEN_CHARS = 4096

        /**
         * Make the tokenizer of a file.
         *
         * @param data bytes of the file
         * @param settings what is said of its tokens beside it
         * @throws BundleError it is damaged, or of a kind that is not known here
         * @throws BadInput it is no JSON, or a key is missing or of another kind
         */
        fun load(data: ByteArray, settings: TokenSettings, where: String): BpeTokenizer {
            val root: JsonObject = parseJson(textOf(data, where), where).fields(where).json
            return JsonTokenizerFile(JsonFields(root, where), settings, where).tokenizer()
        }
    }
}

/** Return a value, or null where it is absent or null. */
internal fun Json?.orNull(): Json? = takeIf { it != JsonNull }

/** Return a text of somebody else's for a message: in quotes, and not all of a long one. */
internal fun shown(text: String): String {
    val chars = text.take(SHOWN_CHARS).map { if (it in ' '..'~' || it > '\u00A0') it else '?' }
    return "\"${chars.joinToString("")}\""
}

private const val SHOWN_CHARS = 60
