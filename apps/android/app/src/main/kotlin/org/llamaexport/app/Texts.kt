package org.llamaexport.app

import android.content.Context
import org.llamaexport.core.AnswerFigures
import org.llamaexport.core.DownloadProgress
import org.llamaexport.core.Manifest

private const val MEGA = 1e6
private const val GIGA = 1e9

/** Return bytes as people read them, such as `1.2 GB`. */
fun Context.sizeText(bytes: Long): String = when {
    bytes >= GIGA -> getString(R.string.gigabytes, bytes / GIGA)
    else -> getString(R.string.megabytes, bytes / MEGA)
}

/** Return the figures under an answer; only what is known. */
fun Context.figuresText(figures: AnswerFigures): String = listOfNotNull(
    resources.getQuantityString(R.plurals.tokens, figures.newTokens, figures.newTokens),
    figures.tokensPerS.takeIf { it > 0 }?.let { getString(R.string.tokens_per_s, it) },
    getString(R.string.first_after, figures.timeToFirstTokenS),
    figures.maxContext?.let { getString(R.string.context_of, figures.contextTokens, it) },
    figures.memoryBytes?.let { getString(R.string.memory_used, sizeText(it)) },
    figures.thermal?.let { getString(R.string.heat, heatText(it)) },
).joinToString(" · ")

/** Return the system's word for its heat in the user's language. */
fun Context.heatText(thermal: String): String {
    val words = resources.getStringArray(R.array.heat_words)
    return words.getOrElse(HEAT.indexOf(thermal)) { thermal }
}

private val HEAT = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

/** Return what a bundle is, such as `ONNX · int4, 5.2 bits · 1.2 GB`. */
fun Context.formatText(manifest: Manifest): String {
    val runtime = when (manifest.target) {
        "onnx" -> "ONNX"
        "executorch" -> "ExecuTorch"
        "coreml" -> "Core ML"
        else -> manifest.target
    }
    val bits = getString(R.string.bits, manifest.recipe, manifest.bitsPerWeight)
    return "$runtime · $bits · ${sizeText(manifest.sizeBytes)}"
}

/** Parts of [perMille]'s whole. */
internal const val PER_MILLE: Int = 1000

/** How much is fetched, in thousandths; null: nobody knows how much there is. */
internal val DownloadProgress.perMille: Int?
    get() = if (sizeBytes > 0) (doneBytes * PER_MILLE / sizeBytes).toInt() else null

/** Return how much is fetched, such as `12 MB of 1.2 GB`. */
fun Context.progressText(progress: DownloadProgress): String =
    if (progress.sizeBytes <= 0) sizeText(progress.doneBytes)
    else getString(R.string.progress_of, sizeText(progress.doneBytes), sizeText(progress.sizeBytes))
