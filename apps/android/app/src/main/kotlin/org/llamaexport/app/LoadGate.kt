package org.llamaexport.app

import android.app.Activity
import android.app.AlertDialog
import java.io.File
import org.llamaexport.core.Manifest
import org.llamaexport.core.MemoryAnswer
import org.llamaexport.core.askMemory
import org.llamaexport.core.bytesFor

// The app itself and its screen.
private const val RESERVED_BYTES = 200L * 1024 * 1024

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
fun Activity.loadGated(parts: Parts, folder: File, manifest: Manifest) {
    val answer = parts.gate(manifest)
    val context = minOf(parts.settings.contextTokens, manifest.maxContext)
    val dialog = AlertDialog.Builder(this)
        .setTitle(R.string.memory_short)
        .setNegativeButton(R.string.cancel, null)
    when (answer) {
        is MemoryAnswer.Fits, MemoryAnswer.Unknown -> return parts.load(folder)
        is MemoryAnswer.Smaller -> dialog
            .setMessage(
                getString(
                    R.string.memory_smaller, folder.name, sizeText(needOf(manifest, context)), context,
                    sizeText(answer.availableBytes), answer.tokens, sizeText(answer.needBytes),
                ),
            )
            .setPositiveButton(getString(R.string.use_tokens, answer.tokens)) { _, _ ->
                parts.load(folder, answer.tokens)
            }
            .setNeutralButton(R.string.try_anyway) { _, _ -> parts.load(folder) }
        is MemoryAnswer.TooLarge -> dialog
            .setMessage(
                getString(
                    R.string.memory_too_large, folder.name, sizeText(answer.needBytes), context,
                    sizeText(answer.availableBytes),
                ),
            )
            .setPositiveButton(R.string.try_anyway) { _, _ -> parts.load(folder) }
    }
    dialog.show()
}

private fun needOf(manifest: Manifest, context: Int): Long =
    manifest.memory?.bytesFor(context) ?: manifest.sizeBytes
