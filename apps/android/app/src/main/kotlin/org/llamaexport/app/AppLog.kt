package org.llamaexport.app

import java.io.File
import java.io.IOException
import java.time.LocalDateTime

private const val MOST_BYTES = 128 * 1024

/**
 * What went wrong, for the user to share; it holds no word of a conversation.
 *
 * @param file where it is kept, with its older half in `NAME.1`
 */
class AppLog(private val file: File) {
    /** Append a line, and an error with all its causes. */
    @Synchronized
    fun write(line: String, error: Throwable? = null) {
        try {
            if (file.length() > MOST_BYTES) file.renameTo(older())
            val trace = error?.let { "\n" + it.stackTraceToString().trim() } ?: ""
            file.appendText("${LocalDateTime.now()} $line$trace\n")
        } catch (_: IOException) {
            // A full storage must not end an answer too.
        }
    }

    /** Return all of it, oldest first. */
    @Synchronized
    fun read(): String = listOf(older(), file).filter { it.isFile }.joinToString("") { it.readText() }

    private fun older() = File(file.path + ".1")
}
