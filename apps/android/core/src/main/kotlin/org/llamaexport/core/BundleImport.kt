package org.llamaexport.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipInputStream

private const val MOST_ENTRIES = 10_000
private const val MOST_LEVELS = 4
private const val CHUNK_BYTES = 1 shl 18
private const val THE_ZIP = "the zip"
private const val CHOOSE_BUNDLE = "Choose a zip or a folder that llama-export wrote."
private const val COPY_AGAIN = "Copy it again from where it was made."
private const val FREE_SPACE = "Delete other models or files, and try again."

/** Files of a bundle somewhere else, such as a folder that the user chose. */
fun interface BundleFiles {
    /** Open a file by its path in the bundle, or return null where there is none. */
    fun open(path: String): InputStream?
}

/**
 * Copies bundles from elsewhere into the folder of models, where the runtimes can map them.
 *
 * A bundle is copied and hashed in `NAME.import`, and gets its name when it is right; else nothing
 * is left of it.
 *
 * @property models folder that holds the bundles
 * @property freeBytes tells the free bytes of the storage that holds a folder
 */
class BundleImport(
    private val models: File,
    private val freeBytes: (File) -> Long = { it.usableSpace },
) {
    /**
     * Copy a bundle from a folder.
     *
     * @param name name that it gets
     * @param onProgress told how far it is; false ends it
     * @throws BundleError it is no bundle, or incomplete, or a file is not what the manifest says, or
     *     the storage is full, or a model of that name is there
     * @throws Stopped [onProgress] ended it
     */
    fun fromFolder(files: BundleFiles, name: String, onProgress: (DownloadProgress) -> Boolean): Bundle =
        staged(name, onProgress) { staging ->
            val opened = read(MANIFEST_NAME) { files.open(MANIFEST_NAME) } ?: throw noBundle()
            val content = opened.use { read(MANIFEST_NAME) { it.readAtMost(MOST_MANIFEST_BYTES) } }
            val manifest = Manifest.parse(content)
            requireSpace(manifest.sizeBytes, freeBytes(staging))
            File(staging, MANIFEST_NAME).writeStored(content)
            var done = 0L
            for ((path, entry) in manifest.files) {
                val input = read(path) { files.open(path) }
                    ?: throw incomplete("$path is missing")
                val copied = input.use {
                    copy(it, path, staging.at(path), entry.sizeBytes) { count ->
                        onProgress(DownloadProgress(done + count, manifest.sizeBytes))
                    }
                }
                if (copied != entry.sizeBytes) {
                    val fault = if (copied > entry.sizeBytes) "more than" else "only $copied of"
                    throw incomplete("$path has $fault ${entry.sizeBytes} bytes")
                }
                done += copied
            }
            staging
        }

    /**
     * Unpack a bundle from a zip, in which it may lie in a folder.
     *
     * @param sizeBytes length of the zip, for the progress; what is unpacked may be longer
     * @throws BundleError as [fromFolder], or the zip is damaged or has a path out of the folder
     * @throws Stopped [onProgress] ended it
     */
    fun fromZip(
        input: InputStream,
        name: String,
        sizeBytes: Long,
        onProgress: (DownloadProgress) -> Boolean,
    ): Bundle = staged(name, onProgress) { staging ->
        unpack(ZipInputStream(input), staging, sizeBytes, onProgress)
        findBundle(staging, MOST_LEVELS) ?: throw noBundle()
    }

    /**
     * Delete what imports left that were killed on their way.
     *
     * A download goes on where it ended and is kept; an import would begin anew.
     */
    fun discardKilled() {
        val left = models.listFiles().orEmpty().filter { it.name.endsWith(IMPORT_ENDING) }
        for (folder in left) {
            try {
                whileAlone(models, folder.name.removeSuffix(IMPORT_ENDING)) { folder.deleteRecursively() }
            } catch (_: BundleError) {
                // It is being imported just now.
            }
        }
    }

    private fun unpack(
        zip: ZipInputStream,
        staging: File,
        sizeBytes: Long,
        onProgress: (DownloadProgress) -> Boolean,
    ) {
        var left = freeBytes(staging) - SPARE_BYTES
        var done = 0L
        var entries = 0
        while (true) {
            val entry = next(zip) ?: break
            entries += 1
            if (entries > MOST_ENTRIES) {
                throw BundleError("the zip has more than $MOST_ENTRIES files", CHOOSE_BUNDLE)
            }
            if (entry.isDirectory) continue
            val fault = if (entry.name == MANIFEST_NAME) null else pathFault(entry.name)
            if (fault != null) throw BundleError("the zip holds '${entry.name}', which $fault", CHOOSE_BUNDLE)
            val copied = copy(zip, THE_ZIP, staging.at(entry.name), left) { count ->
                onProgress(DownloadProgress(minOf(done + count, sizeBytes), sizeBytes))
            }
            if (copied > left) throw full("the storage is full")
            left -= copied
            done += copied
        }
        if (entries == 0) throw noBundle("the file is no zip, or an empty one")
    }

    private fun next(zip: ZipInputStream): ZipEntry? = try {
        read(THE_ZIP) { zip.nextEntry }
    } catch (error: IllegalArgumentException) {
        // What it says to a name that is not UTF-8.
        throw BundleError("$THE_ZIP is damaged: ${error.message}", COPY_AGAIN, error)
    }

    /** Read of what is imported, where a failure is the source's and not the storage's. */
    private inline fun <T> read(what: String, work: () -> T): T = try {
        work()
    } catch (error: IOException) {
        throw BundleError("$what cannot be read: ${error.message}", COPY_AGAIN, error)
    }

    /** Copy at most [mostBytes] and one piece more; return how many there were. */
    private fun copy(
        input: InputStream,
        what: String,
        file: File,
        mostBytes: Long,
        goesOn: (Long) -> Boolean,
    ): Long {
        file.parentFile?.mkdirs()
        var copied = 0L
        FileOutputStream(file).use { output ->
            val chunk = ByteArray(CHUNK_BYTES)
            while (copied <= mostBytes) {
                val count = read(what) { input.read(chunk) }
                if (count < 0) break
                output.write(chunk, 0, count)
                copied += count
                if (!goesOn(copied)) throw Stopped()
            }
            output.fd.sync()
        }
        return copied
    }

    private fun findBundle(folder: File, levels: Int): File? {
        if (File(folder, MANIFEST_NAME).isFile) return folder
        if (levels == 0) return null
        return folder.listFiles().orEmpty().filter { it.isDirectory }.sorted()
            .firstNotNullOfOrNull { findBundle(it, levels - 1) }
    }

    private fun staged(
        name: String,
        onProgress: (DownloadProgress) -> Boolean,
        fill: (File) -> File,
    ): Bundle {
        val target = placeOfNew(models, name)
        models.mkdirs()
        return whileAlone(models, name) {
            val staging = File(models, name + IMPORT_ENDING)
            staging.deleteRecursively()
            try {
                if (!staging.mkdirs()) throw full("${staging.name} cannot be made")
                val found = fill(staging)
                val bundle = Bundle.open(found)
                val whole = DownloadProgress(bundle.manifest.sizeBytes, bundle.manifest.sizeBytes)
                if (!bundle.checkHashes { onProgress(whole) }) throw Stopped()
                if (!found.renameTo(target)) {
                    throw full("${found.name} cannot be renamed to $name")
                }
            } finally {
                staging.deleteRecursively()
            }
            Bundle.open(target)
        }
    }

    private fun noBundle(message: String = "it holds no $MANIFEST_NAME, so it is no bundle") =
        BundleError(message, CHOOSE_BUNDLE, kind = ErrorKind.NO_BUNDLE)

    private fun incomplete(message: String) =
        BundleError(message, CHOOSE_BUNDLE, kind = ErrorKind.INCOMPLETE)

    private fun full(message: String) = BundleError(message, FREE_SPACE, kind = ErrorKind.STORAGE)
}
