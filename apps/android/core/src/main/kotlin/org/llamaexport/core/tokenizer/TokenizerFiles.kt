package org.llamaexport.core.tokenizer

import org.llamaexport.core.BundleError
import java.io.File
import java.io.IOException

/** What a tokenizer's file is. */
internal enum class FileKind(val shown: String) {
    JSON("tokenizer.json"),
    RANKS("base64 rank lines"),
    PIECES("a SentencePiece model"),
}

internal const val JSON_FILE = "tokenizer.json"
internal const val MODEL_FILE = "tokenizer.model"
internal const val GET_ANOTHER = "Get the whole bundle again, or export the model again."

/** Llama 3's tokenizer.json takes 9 to 17 MB, by how it is written; one of 256,000 tokens 33 MB. */
private const val MOST_BYTES = 64L * 1024 * 1024

/** Read a tokenizer's file, and no more than any tokenizer has. @throws BundleError it cannot be read */
internal fun readTokenizerFile(file: File): ByteArray {
    if (file.length() > MOST_BYTES) {
        throw BundleError("${file.name}: ${file.length()} bytes are too many for a tokenizer", GET_ANOTHER)
    }
    try {
        return file.readBytes()
    } catch (error: IOException) {
        throw BundleError("${file.name} cannot be read: ${error.message}", GET_ANOTHER, error)
    }
}

/** Return the text of a file. @throws BundleError it is not UTF-8 */
internal fun textOf(data: ByteArray, where: String): String {
    try {
        return data.decodeToString(throwOnInvalidSequence = true)
    } catch (error: CharacterCodingException) {
        throw BundleError("$where is not UTF-8", GET_ANOTHER, error)
    }
}

/**
 * Return what a file is, by its first bytes and never by its name.
 *
 * @throws BundleError it is no tokenizer
 */
internal fun kindOf(data: ByteArray, where: String): FileKind {
    val head = data.copyOf(minOf(data.size, HEAD_BYTES))
    val text = String(CharArray(head.size) { (head[it].toInt() and 0xFF).toChar() })
    val isPieces = head.size >= 4 && head[0] == FIELD_1 && head[1] > 2 && head[2] == FIELD_1 && head[3] > 0
    return when {
        text.trimStart(' ', '\t', '\r', '\n').startsWith("{") -> FileKind.JSON
        isRankLine(text.substringBefore('\n').removeSuffix("\r")) -> FileKind.RANKS
        // A protobuf: field 1 (the pieces), its length, and in it field 1 (the piece's text).
        isPieces -> FileKind.PIECES
        else -> throw unknownKind(text, where)
    }
}

private fun unknownKind(head: String, where: String): BundleError {
    val found = when {
        head.startsWith("version https://git-lfs") -> "a Git LFS pointer instead of the file"
        head.isBlank() -> "an empty file"
        else -> "a file that begins with ${shown(head.take(12))}"
    }
    val kinds = FileKind.entries.joinToString { it.shown }
    return BundleError("$where: expected a tokenizer ($kinds), found $found", GET_ANOTHER)
}

private fun isRankLine(line: String): Boolean {
    val token = line.substringBefore(' ').trimEnd('=')
    val rank = line.substringAfter(' ', "")
    val isToken = token.isNotEmpty() && token.all { it in BASE64 }
    return isToken && rank.isNotEmpty() && rank.all { it in '0'..'9' }
}

private const val HEAD_BYTES = 256
private const val FIELD_1: Byte = 10
private const val BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
