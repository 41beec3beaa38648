package org.llamaexport.core.tokenizer

import org.llamaexport.core.BundleError
import org.llamaexport.core.Json
import org.llamaexport.core.JsonBool
import org.llamaexport.core.JsonFields
import org.llamaexport.core.JsonNumber
import org.llamaexport.core.JsonObject
import org.llamaexport.core.JsonText
import org.llamaexport.core.fields
import org.llamaexport.core.write

/**
 * The steps of a `tokenizer.json` around its model: each is done exactly, or refused by name.
 *
 * @param where name of the file, for messages
 */
internal class PipelineSteps(private val where: String) {
    /**
     * Return what is done to a section of text before it is split.
     *
     * @param isLegacy whether a blank is put before every section, and not the first one alone
     */
    fun normalizer(step: Json?, isLegacy: Boolean): (text: String, isFirst: Boolean) -> String {
        val changes = flattened(step, "normalizers", "normalizer").map { changeOf(it, isLegacy) }
        return { text, isFirst -> changes.fold(text) { changed, change -> change(changed, isFirst) } }
    }

    private fun changeOf(step: JsonFields, isLegacy: Boolean): (String, Boolean) -> String {
        val type = step.text("type")
        val pattern = (step.json["pattern"] as? JsonObject)?.get("Regex")
        val isPrefix = type == "Prepend" || pattern == ANY_BEGINNING
        val change = change(step, type)
        return { text, isFirst -> if (isPrefix && !isFirst && !isLegacy) text else change(text) }
    }

    private fun change(step: JsonFields, type: String): (String) -> String {
        if (type == "Prepend") return prepending(step.text("prepend"))
        if (type != "Replace") refuse("normalizer", type, "Prepend or Replace")
        val content = step.text("content")
        val pattern = step.fields("pattern").json
        val literal = (pattern["String"] as? JsonText)?.value
        if (literal != null && literal.isNotEmpty()) return { it.replace(literal, content) }
        return when (pattern["Regex"] to content) {
            JsonText("\\A +|[ $BLANK_LETTER]+\\z") to "" -> ::withoutOuterBlanks
            JsonText(" {2,}") to " " -> ::singleBlanks
            ANY_BEGINNING to "$BLANK_LETTER" -> prepending("$BLANK_LETTER")
            else -> refuse("normalizer", "Replace of ${shown(pattern.write())}", "one that an export writes")
        }
    }

    private fun withoutOuterBlanks(text: String): String = text.trimStart(' ').trimEnd(' ', BLANK_LETTER)

    private fun prepending(prefix: String): (String) -> String = { if (it.isEmpty()) it else prefix + it }

    private fun singleBlanks(text: String): String =
        text.filterIndexed { index, unit -> unit != ' ' || index == 0 || text[index - 1] != ' ' }

    /** Return what splits text of a byte-level model, or null where the model merges characters. */
    fun splitters(step: Json?): List<Splitter>? {
        val steps = flattened(step, "pretokenizers", "pre_tokenizer")
        if (steps.isEmpty() || (steps.size == 1 && steps[0].text("type") == "Metaspace")) return null
        val last = steps.last()
        if (last.text("type") != "ByteLevel") {
            refuse("pre_tokenizer", last.text("type"), "ByteLevel as the last step")
        }
        if (last.bool("add_prefix_space")) refuse("pre_tokenizer", "add_prefix_space", "ByteLevel without it")
        val classes = CharacterClasses.shared
        val splits = "use_regex" !in last || last.bool("use_regex")
        return steps.dropLast(1).map(::splitter) + if (splits) listOf(Gpt2Splitter(classes)) else emptyList()
    }

    private fun splitter(step: JsonFields): Splitter = when (val type = step.text("type")) {
        "Digits" -> DigitSplitter(CharacterClasses.shared, step.bool("individual_digits"))
        "Split" -> {
            val pattern = step.fields("pattern").json
            val isKnown = pattern == JsonObject("Regex" to JsonText(Llama3Splitter.PATTERN)) &&
                step.text("behavior") == "Isolated" && !step.bool("invert")
            val found = "Split by ${shown(pattern.write())}"
            if (!isKnown) refuse("pre_tokenizer", found, "Llama 3's pattern, isolated")
            Llama3Splitter(CharacterClasses.shared)
        }
        else -> refuse("pre_tokenizer", type, "Split, Digits or ByteLevel")
    }

    /** Return what the step `Metaspace` does to a section: blanks become letters, one comes before. */
    fun metaspace(step: Json?): (String, Boolean) -> String {
        val found = flattened(step, "pretokenizers", "pre_tokenizer").firstOrNull()
            ?: return { text, _ -> text }
        val isKnown = found.text("replacement") == "$BLANK_LETTER" && found.json["split"] == JsonBool(false)
        if (!isKnown) refuse("pre_tokenizer", "Metaspace that splits", "Metaspace with \"split\": false")
        val scheme = found.text("prepend_scheme")
        if (scheme !in PREPEND_SCHEMES) refuse("pre_tokenizer", "Metaspace ${shown(scheme)}", "first")
        return { text, isFirst ->
            val lettered = text.replace(' ', BLANK_LETTER)
            val prepends = scheme == "always" || (scheme == "first" && isFirst)
            if (prepends && !lettered.startsWith(BLANK_LETTER)) BLANK_LETTER + lettered else lettered
        }
    }

    /** Return how many blanks fall away before a text of pieces, or null where ids stand for bytes. */
    fun decoder(step: Json?): Int? {
        val steps = flattened(step, "decoders", "decoder").map { it.json }
        if (steps.size == 1 && steps[0]["type"] == JsonText("ByteLevel")) return null
        val strip = mapOf("content" to JsonText(" "), "start" to JsonNumber(1), "stop" to JsonNumber(0))
        val last = steps.drop(PIECE_DECODERS.size).singleOrNull()
        val strips = last?.entries == strip + ("type" to JsonText("Strip"))
        val isKnown = steps.take(PIECE_DECODERS.size) == PIECE_DECODERS
        if (!isKnown || (steps.size > PIECE_DECODERS.size && !strips)) {
            val types = steps.joinToString { (it["type"] as? JsonText)?.value ?: "unknown" }
            refuse("decoder", types.ifEmpty { "none" }, "ByteLevel, or Replace, ByteFallback and Fuse")
        }
        return if (strips) 1 else 0
    }

    /** Return the ids that the post-processor puts before a text. */
    fun prefixIds(step: Json?): IntArray {
        val found = flattened(step, "processors", "post_processor").map { each ->
            when (val type = each.text("type")) {
                "ByteLevel" -> emptyList()
                "TemplateProcessing" -> templateIds(each)
                else -> refuse("post_processor", type, "TemplateProcessing or ByteLevel")
            }
        }
        // A later step puts its tokens before those of an earlier one.
        return found.reversed().flatten().toIntArray()
    }

    private fun templateIds(step: JsonFields): List<Int> {
        val names = step.list("single").map { it.fields(step.at("single")) }
            .takeWhile { "SpecialToken" in it }
            .map { it.fields("SpecialToken").text("id") }
        val tokens = step.fields("special_tokens")
        return names.flatMap { name -> tokens.fields(name).list("ids").map { idOf(it) } }
    }

    private fun idOf(value: Json): Int = (value as? JsonNumber)?.text?.toIntOrNull()?.takeIf { it >= 0 }
        ?: throw BundleError(
            "$where: post_processor: expected ids, found ${shown(value.write())}",
            GET_ANOTHER,
        )

    /** Return the steps of a place, of which there may be none, one, or a sequence. */
    private fun flattened(step: Json?, key: String, place: String): List<JsonFields> {
        val fields = step.orNull()?.fields("$where: $place") ?: return emptyList()
        if (fields.text("type") != "Sequence") return listOf(fields)
        return fields.list(key).flatMap { flattened(it, key, place) }
    }

    /** Refuse a step that is not done here. */
    fun refuse(place: String, found: String, expected: String): Nothing = throw BundleError(
        "$where: the $place has $found, which this app does not do: expected $expected",
        "Run this model with llama-export on a computer, or take a model with a tokenizer of Llama's kinds.",
    )

    private companion object {
        val ANY_BEGINNING = JsonText("\\A(?=[\\s\\S])")
        val PREPEND_SCHEMES = listOf("always", "first", "never")
        val PIECE_DECODERS = listOf(
            JsonObject(
                "type" to JsonText("Replace"),
                "pattern" to JsonObject("String" to JsonText("$BLANK_LETTER")),
                "content" to JsonText(" "),
            ),
            JsonObject("type" to JsonText("ByteFallback")),
            JsonObject("type" to JsonText("Fuse")),
        )
    }
}
