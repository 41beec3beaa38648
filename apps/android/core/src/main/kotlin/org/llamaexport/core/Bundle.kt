package org.llamaexport.core

import java.io.File
import java.io.IOException
import java.security.MessageDigest

private const val CHUNK_BYTES = 1 shl 20
private const val HEX = "0123456789abcdef"
private const val COPY_AGAIN = "The bundle was changed or is incomplete: copy it again."

/**
 * A folder whose manifest was read and whose files are there in their full length.
 *
 * Files that the manifest does not list do no harm, because no path of it leads to one.
 */
class Bundle private constructor(val folder: File, val manifest: Manifest) {
    /** The file that the runtime loads. */
    val artifact: File get() = folder.at(manifest.artifact)

    /**
     * Read every listed file and compare it with the manifest.
     *
     * @param onBytes told the number of bytes read since its last call; false ends the check
     * @return whether the check came to its end
     * @throws BundleError files are changed or unreadable; all are named
     */
    fun checkHashes(onBytes: (Int) -> Boolean): Boolean {
        val faults = ArrayList<String>()
        for ((path, entry) in manifest.files) {
            val fault = lengthFault(folder.at(path), entry) ?: try {
                val found = sha256(folder.at(path), onBytes) ?: return false
                if (found == entry.sha256) null else "has other bytes than the manifest says"
            } catch (error: IOException) {
                "cannot be read: ${error.message}"
            }
            if (fault != null) faults.add("$path $fault")
        }
        if (faults.isEmpty()) return true
        val message = "${folder.name}: ${faults.joinToString("; ")}"
        throw BundleError(message, COPY_AGAIN, kind = ErrorKind.WRONG_BYTES)
    }

    /**
     * Read the bundle's golden data, whose hash is compared first.
     *
     * @return the data; null: the manifest lists none
     * @throws BundleError the file is changed, or not what this app reads
     */
    fun readGolden(): Golden? {
        val entry = manifest.files[GOLDEN_NAME] ?: return null
        val file = folder.at(GOLDEN_NAME)
        val fault = lengthFault(file, entry)
        if (fault != null || entry.sizeBytes > MOST_GOLDEN_BYTES) {
            val found = fault ?: "has more than $MOST_GOLDEN_BYTES bytes"
            throw BundleError("${folder.name}: $GOLDEN_NAME $found", COPY_AGAIN)
        }
        val content = try {
            file.readBytes()
        } catch (error: IOException) {
            throw BundleError("$GOLDEN_NAME cannot be read: ${error.message}", COPY_AGAIN, error)
        }
        if (MessageDigest.getInstance("SHA-256").digest(content).toHex() != entry.sha256) {
            val message = "${folder.name}: $GOLDEN_NAME has other bytes than the manifest says"
            throw BundleError(message, COPY_AGAIN)
        }
        return Golden.parse(content)
    }

    companion object {
        /**
         * Read and check a bundle, all but the hashes.
         *
         * @throws BundleError it holds no manifest, a damaged or a newer one, or files are missing
         *     or have another length; all are named
         */
        fun open(folder: File): Bundle {
            val file = File(folder, MANIFEST_NAME)
            if (!file.isFile) {
                throw BundleError(
                    "${folder.name} holds no $MANIFEST_NAME, so it is no bundle",
                    "Choose the folder that the export wrote, such as 3.2-1B-Instruct/onnx.",
                    kind = ErrorKind.NO_BUNDLE,
                )
            }
            if (file.length() > MOST_MANIFEST_BYTES) {
                val message = "${folder.name}/$MANIFEST_NAME is larger than $MOST_MANIFEST_BYTES bytes"
                throw BundleError(message, COPY_AGAIN)
            }
            val manifest = try {
                Manifest.parse(file.readBytes(), "${folder.name}/$MANIFEST_NAME")
            } catch (error: IOException) {
                val message = "${folder.name}/$MANIFEST_NAME cannot be read: ${error.message}"
                throw BundleError(message, COPY_AGAIN, error)
            }
            val faults = manifest.files.mapNotNull { (path, entry) ->
                lengthFault(folder.at(path), entry)?.let { "$path $it" }
            }
            if (faults.isNotEmpty()) {
                val message = "${folder.name}: ${faults.joinToString("; ")}"
                throw BundleError(message, COPY_AGAIN, kind = ErrorKind.INCOMPLETE)
            }
            return Bundle(folder, manifest)
        }

        private fun lengthFault(file: File, entry: FileEntry): String? = when {
            !file.isFile -> "is missing"
            file.length() != entry.sizeBytes ->
                "has ${file.length()} bytes, and the manifest says ${entry.sizeBytes}"
            else -> null
        }
    }
}

/**
 * Hash a file in pieces of bounded memory.
 *
 * @param onBytes told the number of bytes read since its last call; false ends it
 * @return the SHA-256 in lower-case hex, or null where [onBytes] ended it
 * @throws IOException the file cannot be read
 */
fun sha256(file: File, onBytes: (Int) -> Boolean): String? {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val chunk = ByteArray(CHUNK_BYTES)
        while (true) {
            val count = stream.read(chunk)
            if (count < 0) break
            digest.update(chunk, 0, count)
            if (!onBytes(count)) return null
        }
    }
    return digest.digest().toHex()
}

/** Return bytes as lower-case hex digits. */
fun ByteArray.toHex(): String = buildString(size * 2) {
    for (byte in this@toHex) {
        append(HEX[byte.toInt() shr 4 and 15])
        append(HEX[byte.toInt() and 15])
    }
}
