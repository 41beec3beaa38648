package org.llamaexport.core

import java.io.File
import java.io.IOException

private const val FREE_SPACE = "Delete other models or files, and try again: it goes on from where it ended."
private const val DELETE_FIRST = "Delete it first, or give the new one another name."
private val UNRESERVED = ('a'..'z').toSet() + ('A'..'Z') + ('0'..'9') + setOf('-', '.', '_', '~')

/**
 * Where a bundle comes from.
 *
 * @property base address of its folder
 * @property token secret for that host; null: none
 */
data class BundleAddress(val base: String, val token: String? = null) {
    /** Return the address of a file of the bundle. */
    fun of(path: String): String =
        base.trimEnd('/') + "/" + path.split('/').joinToString("/") { escaped(it) }

    // The token is a secret, and messages and logs show addresses.
    override fun toString(): String = "BundleAddress(base=$base)"

    companion object {
        /**
         * Return the address of a folder in a repository of the Hugging Face Hub.
         *
         * @param host address of the hub
         * @param repository owner and name, such as `me/my-model-onnx`
         * @param folder path of the bundle in it; empty: the top
         * @throws BadInput the repository is no owner and name
         */
        fun onHub(
            host: String,
            repository: String,
            folder: String,
            revision: String = "main",
            token: String? = null,
        ): BundleAddress {
            val parts = repository.split('/')
            if (parts.size != 2 || parts.any { pathFault(it) != null }) {
                val hint = "Give owner/name, as its page has it."
                throw BadInput("'$repository' is no repository", hint, kind = ErrorKind.ADDRESS)
            }
            if (folder.isNotEmpty()) {
                pathFault(folder)?.let {
                    val message = "the folder '$folder' $it"
                    throw BadInput(message, "Give its path in it.", kind = ErrorKind.ADDRESS)
                }
            }
            val place = parts.joinToString("/") { escaped(it) }
            val inner = folder.split('/').filter { it.isNotEmpty() }.joinToString("") { "/" + escaped(it) }
            return BundleAddress("${host.trimEnd('/')}/$place/resolve/${escaped(revision)}$inner", token)
        }

        private fun escaped(part: String): String = buildString {
            for (byte in part.toByteArray(Charsets.UTF_8)) {
                val char = (byte.toInt() and 0xff).toChar()
                if (char in UNRESERVED) append(char) else append('%').append(byteArrayOf(byte).toHex())
            }
        }
    }
}

/** How far a download is: bytes of all files. */
data class DownloadProgress(val doneBytes: Long, val sizeBytes: Long)

/**
 * Fetches bundles, so that one is whole or not there, and a run goes on where another ended.
 *
 * The manifest comes first and has every length and hash. Files gather in `NAME.download`, which
 * gets the bundle's own name when all of them are right.
 *
 * @property models folder that holds the bundles
 * @property freeBytes tells the free bytes of the storage that holds a folder
 */
class Downloader(
    private val models: File,
    private val http: Http = UrlHttp,
    private val freeBytes: (File) -> Long = { it.usableSpace },
) {
    /**
     * Fetch a bundle, or go on fetching it.
     *
     * @param name name of its folder
     * @param isStopped asked often, from the same thread; true ends the download
     * @throws BundleError what is there is no bundle, or other than its manifest says; or a bundle
     *     of that name is there already, or is just being fetched
     * @throws NetworkError the server does not give it now
     * @throws Stopped the user asked; what is there is kept
     */
    fun fetch(
        address: BundleAddress,
        name: String,
        isStopped: () -> Boolean,
        onProgress: (DownloadProgress) -> Unit,
    ): Bundle {
        val target = placeOfNew(models, name)
        val staging = File(models, name + DOWNLOAD_ENDING)
        if (!staging.isDirectory && !staging.mkdirs()) {
            val hint = "Look whether the storage is full."
            throw BundleError("${staging.name} cannot be made", hint, kind = ErrorKind.STORAGE)
        }
        return whileAlone(models, name) {
            val manifest = begin(address, staging)
            val sizeBytes = manifest.sizeBytes
            requireSpace(missingBytes(staging, manifest), freeBytes(staging))
            var done = 0L
            for ((path, entry) in manifest.files.toSortedMap()) {
                val file = staging.at(path)
                file.parentFile?.mkdirs()
                FileDownload(http, address.of(path), address.token, file, entry).run(isStopped) {
                    onProgress(DownloadProgress(done + it, sizeBytes))
                }
                done += entry.sizeBytes
            }
            Bundle.open(staging)
            if (!staging.renameTo(target)) {
                val message = "${staging.name} cannot be renamed to $name"
                throw BundleError(message, DELETE_FIRST, kind = ErrorKind.STORAGE)
            }
            Bundle.open(target)
        }
    }

    /** Delete what an unfinished download left. @throws BadInput the name is none */
    fun discard(name: String) {
        requireFolderName(name)
        File(models, name + DOWNLOAD_ENDING).deleteRecursively()
        File(models, name + LOCK_ENDING).delete()
    }

    /** Return the names of downloads that did not end, and can go on. */
    fun unfinished(): List<String> = models.list().orEmpty()
        .filter { it.endsWith(DOWNLOAD_ENDING) }
        .map { it.removeSuffix(DOWNLOAD_ENDING) }
        .sorted()

    /** Fetch the manifest; when it is another one than the last run's, begin anew. */
    private fun begin(address: BundleAddress, staging: File): Manifest {
        val content = fetchManifest(address)
        val manifest = Manifest.parse(content)
        val kept = File(staging, MANIFEST_NAME)
        if (!kept.isFile || !kept.readBytes().contentEquals(content)) {
            for (file in staging.listFiles().orEmpty()) file.deleteRecursively()
            val aside = File(staging, MANIFEST_NAME + PART_ENDING)
            aside.writeStored(content)
            if (!aside.renameTo(kept)) {
                throw BundleError("$MANIFEST_NAME cannot be written", FREE_SPACE, kind = ErrorKind.STORAGE)
            }
        }
        return manifest
    }

    private fun fetchManifest(address: BundleAddress): ByteArray =
        http.get(address.of(MANIFEST_NAME), address.token, 0).use { answer ->
            if (answer.status != 200) {
                val found = if (answer.status < 0) "what answers is no web server" else
                    "the server answered ${answer.status}"
                throw NetworkError(
                    "$MANIFEST_NAME: $found",
                    "Give the address of a folder that holds a $MANIFEST_NAME; a private one needs a token.",
                    kind = kindOf(answer.status),
                )
            }
            try {
                answer.body.readAtMost(MOST_MANIFEST_BYTES)
            } catch (error: IOException) {
                val message = "$MANIFEST_NAME broke off: ${error.message}"
                throw NetworkError(message, "Try again.", error, ErrorKind.NETWORK)
            }
        }

    private fun kindOf(status: Int): ErrorKind =
        if (status == UNAUTHORISED || status == FORBIDDEN) ErrorKind.TOKEN_WANTED else ErrorKind.SERVER

    private fun missingBytes(staging: File, manifest: Manifest): Long =
        manifest.files.entries.sumOf { (path, entry) ->
            val file = staging.at(path)
            val there = if (file.isFile) file.length() else File(file.path + PART_ENDING).length()
            maxOf(0L, entry.sizeBytes - there)
        }
}
