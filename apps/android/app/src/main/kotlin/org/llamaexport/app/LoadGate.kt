package org.llamaexport.app

import android.app.AlertDialog
import android.app.Dialog
import android.os.Bundle
import java.io.File
import org.llamaexport.core.Manifest
import org.llamaexport.core.MemoryAnswer
import org.llamaexport.core.askMemory
import org.llamaexport.core.bytesFor

// The app itself and its screen.
private const val RESERVED_BYTES = 200L * 1024 * 1024
private const val FOLDER = "folder"
private const val TEXT = "text"
private const val TOKENS = "tokens"

/**
 * Compare a model with the memory that there is; where its bundle does not say what it needs, its
 * files are taken for it.
 *
 * @param contextTokens number of positions that are wanted
 */
fun askGate(manifest: Manifest, contextTokens: Int, availableBytes: Long): MemoryAnswer {
    val context = minOf(contextTokens, manifest.maxContext)
    val answer = askMemory(manifest.memory, context, availableBytes, RESERVED_BYTES)
    if (answer != MemoryAnswer.Unknown) return answer
    val need = manifest.sizeBytes
    return if (need + RESERVED_BYTES <= availableBytes) MemoryAnswer.Fits(need, availableBytes)
    else MemoryAnswer.TooLarge(need, availableBytes)
}

/** Load a model, after asking the user where its memory is not there. */
fun ScreenActivity.loadGated(folder: File, manifest: Manifest) {
    val answer = parts.gate(manifest)
    val context = minOf(parts.settings.contextTokens, manifest.maxContext)
    val about = Bundle().apply { putString(FOLDER, folder.path) }
    when (answer) {
        is MemoryAnswer.Fits, MemoryAnswer.Unknown -> return parts.load(folder)
        is MemoryAnswer.Smaller -> {
            val need = manifest.memory?.bytesFor(context) ?: manifest.sizeBytes
            val text = getString(
                R.string.memory_smaller, folder.name, sizeText(need), context,
                sizeText(answer.availableBytes), answer.tokens, sizeText(answer.needBytes),
            )
            about.putString(TEXT, text)
            about.putInt(TOKENS, answer.tokens)
        }
        is MemoryAnswer.TooLarge -> {
            val text = getString(
                R.string.memory_too_large, folder.name, sizeText(answer.needBytes), context,
                sizeText(answer.availableBytes),
            )
            about.putString(TEXT, text)
        }
    }
    ask(Ask.MEMORY, about)
}

/** Make the dialog of [loadGated]. */
internal fun ScreenActivity.gateDialog(about: Bundle): Dialog {
    val folder = File(about.getString(FOLDER).orEmpty())
    val tokens = about.getInt(TOKENS)
    val dialog = AlertDialog.Builder(this)
        .setTitle(R.string.memory_short)
        .setMessage(about.getString(TEXT))
        .setNegativeButton(R.string.cancel, null)
    if (tokens == 0) {
        dialog.setPositiveButton(R.string.try_anyway) { _, _ -> parts.load(folder) }
    } else {
        val shorter = getString(R.string.use_tokens, tokens)
        dialog.setPositiveButton(shorter) { _, _ -> parts.load(folder, tokens) }
            .setNeutralButton(R.string.try_anyway) { _, _ -> parts.load(folder) }
    }
    return dialog.create()
}
