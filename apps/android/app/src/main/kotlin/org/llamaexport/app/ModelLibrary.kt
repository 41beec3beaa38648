package org.llamaexport.app

import android.content.res.AssetManager
import java.io.File
import java.io.FileNotFoundException
import org.llamaexport.core.AppError
import org.llamaexport.core.Bundle
import org.llamaexport.core.BundleFiles
import org.llamaexport.core.BundleImport
import org.llamaexport.core.MANIFEST_NAME
import org.llamaexport.core.Manifest

private const val DEMO = "demo"
private val UNFINISHED = listOf(".download", ".import")

/** A folder of models. */
sealed interface ModelEntry {
    val folder: File

    /** One whose manifest and lengths are right. */
    data class Sound(override val folder: File, val manifest: Manifest) : ModelEntry

    /** One that cannot be loaded. */
    data class Damaged(override val folder: File, val error: AppError) : ModelEntry
}

/**
 * The models on this phone; it reads and writes files, so it belongs on a thread for them.
 *
 * @property own folder of the app's own, where imports and downloads go; what lies there was hashed
 * @property pushed folder that a cable reaches (`adb push`); null: the phone has none now
 */
class ModelLibrary(val own: File, private val pushed: File?) {
    /** Return all models, by name. */
    fun list(): List<ModelEntry> = listOfNotNull(own, pushed)
        .flatMap { it.listFiles().orEmpty().asList() }
        .filter { folder -> folder.isDirectory && UNFINISHED.none { folder.name.endsWith(it) } }
        .sortedBy { it.name }
        .map { folder ->
            try {
                ModelEntry.Sound(folder, Bundle.open(folder).manifest)
            } catch (error: AppError) {
                ModelEntry.Damaged(folder, error)
            }
        }

    /** Return whether the app has not checked a model's bytes itself. */
    fun isUnchecked(folder: File): Boolean = folder.parentFile != own

    /** Delete a model. */
    fun delete(folder: File): Boolean = folder.deleteRecursively()

    /** Return a name like [wanted] that no model has yet. */
    fun freeName(wanted: String): String {
        val kept = wanted.map { if (it.isLetterOrDigit() || it in "-_.") it else '-' }.joinToString("")
        val base = kept.trim('.', '-').ifEmpty { "model" }
        return generateSequence(1) { it + 1 }.map { if (it == 1) base else "$base-$it" }
            .first { !File(own, it).exists() }
    }

    /**
     * Copy the bundle that the app itself brings, where it brings one and no model is there.
     *
     * @return its folder; null: there is nothing to do
     */
    fun installDemo(assets: AssetManager): File? {
        if (assets.list(DEMO).orEmpty().none { it == MANIFEST_NAME } || list().isNotEmpty()) return null
        val files = BundleFiles { path ->
            try {
                assets.open("$DEMO/$path")
            } catch (_: FileNotFoundException) {
                null
            }
        }
        own.mkdirs()
        return BundleImport(own).fromFolder(files, DEMO) { true }.folder
    }
}
