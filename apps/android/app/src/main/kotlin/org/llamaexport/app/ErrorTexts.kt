package org.llamaexport.app

import android.content.Context
import org.llamaexport.core.AppError
import org.llamaexport.core.ErrorKind

/** Return an error and what to do about it, in the user's language where its kind has words there. */
internal fun AppError.inWords(context: Context): String {
    val details = sentence(message.orEmpty())
    val words = WORDS[kind]
        ?: return if (hint.isEmpty()) details else "$details\n$hint"
    // What the app says in general leaves out what is known of the one case.
    val more = if (kind in GENERAL && hint.isNotEmpty()) "$details $hint" else details
    return context.getString(words) + "\n" + context.getString(R.string.error_details, more)
}

private fun sentence(text: String): String {
    // A file's name stays as it is.
    val isWord = text.takeWhile { it != ' ' }.all { it.isLetter() }
    return (if (isWord) text.replaceFirstChar { it.uppercaseChar() } else text).trimEnd('.') + "."
}

private val WORDS: Map<ErrorKind, Int> = mapOf(
    ErrorKind.NO_MEMORY to R.string.error_memory,
    ErrorKind.STORAGE to R.string.error_storage,
    ErrorKind.NETWORK to R.string.error_network,
    ErrorKind.SERVER to R.string.error_server,
    ErrorKind.TOKEN_WANTED to R.string.error_token,
    ErrorKind.ADDRESS to R.string.error_address,
    ErrorKind.NO_BUNDLE to R.string.error_no_bundle,
    ErrorKind.INCOMPLETE to R.string.error_incomplete,
    ErrorKind.WRONG_BYTES to R.string.error_bytes,
    ErrorKind.DAMAGED to R.string.error_damaged,
    ErrorKind.NEWER_FORMAT to R.string.error_newer,
    ErrorKind.NAME_TAKEN to R.string.error_name,
    ErrorKind.CONTEXT_FULL to R.string.error_context,
    ErrorKind.SETTING to R.string.error_setting,
    ErrorKind.RUNTIME_VERSION to R.string.error_version,
    ErrorKind.ENGINE to R.string.error_engine,
)

private val GENERAL = setOf(ErrorKind.SERVER, ErrorKind.DAMAGED, ErrorKind.ENGINE)
