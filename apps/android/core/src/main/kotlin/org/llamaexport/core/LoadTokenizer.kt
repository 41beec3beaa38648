package org.llamaexport.core

import org.llamaexport.core.tokenizer.FileKind
import org.llamaexport.core.tokenizer.GET_ANOTHER
import org.llamaexport.core.tokenizer.JSON_FILE
import org.llamaexport.core.tokenizer.JsonTokenizerFile
import org.llamaexport.core.tokenizer.Llama3Json
import org.llamaexport.core.tokenizer.MODEL_FILE
import org.llamaexport.core.tokenizer.RankTokens
import org.llamaexport.core.tokenizer.TokenSettings
import org.llamaexport.core.tokenizer.kindOf
import org.llamaexport.core.tokenizer.readTokenizerFile
import java.io.File

/**
 * Load the tokenizer of a bundle, with what the tokenizer_config.json beside it says of it.
 *
 * tokenizer.json counts, because fine-tunes change their tokens there. Where it is the one that an
 * export makes of tokenizer.model, the latter is read, which is faster. A SentencePiece
 * tokenizer.model is not read: the tokenizer.json beside it was proved to give the same ids.
 *
 * @param folder folder of a bundle
 * @throws BundleError there is no tokenizer, it is damaged, or of a kind that is not known here
 * @throws BadInput a file is no JSON, or has keys of other kinds than expected
 */
fun loadTokenizer(folder: File): Tokenizer {
    val json = File(folder, JSON_FILE)
    val model = File(folder, MODEL_FILE)
    val settings = TokenSettings.read(folder)
    if (!json.isFile) return load(model, settings)
    val data = readTokenizerFile(json)
    if (model.isFile) {
        val ranks = ranksOf(model)
        if (ranks != null && Llama3Json.isMadeOf(ranks, data)) return ranks.tokenizer()
    }
    return load(json.name, data, settings)
}

private fun load(file: File, settings: TokenSettings): Tokenizer {
    if (!file.isFile) {
        val message = "${file.parentFile} holds no tokenizer: expected $JSON_FILE or $MODEL_FILE"
        throw BundleError(message, GET_ANOTHER)
    }
    return load(file.name, readTokenizerFile(file), settings)
}

private fun load(name: String, data: ByteArray, settings: TokenSettings): Tokenizer =
    when (kindOf(data, name)) {
        FileKind.JSON -> JsonTokenizerFile.load(data, settings, name)
        FileKind.RANKS -> RankTokens.parse(data, name).tokenizer()
        FileKind.PIECES -> throw BundleError(
            "$name is a SentencePiece model, which this app does not read: expected a $JSON_FILE beside it",
            "Export the model again. Where the export says that no $JSON_FILE gives the same ids, take " +
                "another model.",
        )
    }

private fun ranksOf(file: File): RankTokens? {
    val data = readTokenizerFile(file)
    return if (kindOf(data, file.name) == FileKind.RANKS) RankTokens.parse(data, file.name) else null
}
