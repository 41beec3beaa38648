package org.llamaexport.app

import android.content.res.AssetManager
import java.io.File
import java.io.FileNotFoundException
import java.io.InputStream
import org.llamaexport.core.AppError
import org.llamaexport.core.Bundle
import org.llamaexport.core.BundleFiles
import org.llamaexport.core.BundleImport
import org.llamaexport.core.MANIFEST_NAME
import org.llamaexport.core.Manifest
import org.llamaexport.core.isUnfinished

private const val DEMO = "demo"

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
        .filter { it.isDirectory && !isUnfinished(it.name) }
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
        val known = kept.trim('.', '-').ifEmpty { "model" }
        val base = if (isUnfinished(known)) "$known-model" else known
        return generateSequence(1) { it + 1 }.map { if (it == 1) base else "$base-$it" }
            .first { !File(own, it).exists() }
    }

    /**
     * Copy the bundle that the app itself brings, where it brings one and no model is there; what a
     * killed import left is deleted first.
     *
     * @param files files of that bundle
     * @return its folder; null: there is nothing to do
     */
    fun installDemo(files: BundleFiles): File? {
        BundleImport(own).discardKilled()
        val isThere = files.open(MANIFEST_NAME)?.use { true } ?: false
        if (!isThere || list().isNotEmpty()) return null
        own.mkdirs()
        return BundleImport(own).fromFolder(files, DEMO) { true }.folder
    }
}

/** The files of the bundle that a debug build brings among its assets. */
class DemoFiles(private val assets: AssetManager) : BundleFiles {
    override fun open(path: String): InputStream? = try {
        assets.open("$DEMO/$path")
    } catch (_: FileNotFoundException) {
        null
    }
}
