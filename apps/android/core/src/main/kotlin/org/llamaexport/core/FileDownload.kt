package org.llamaexport.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.security.MessageDigest

private const val CHUNK_BYTES = 1 shl 16
private const val NOT_HTTP = -1
private const val WHOLE = 200
private const val PART = 206
private const val NOT_SUCH_RANGE = 416
internal const val UNAUTHORISED = 401
internal const val FORBIDDEN = 403
private const val NOT_FOUND = 404
private const val LATER = "What is there is kept: try again to go on from where it ended."
private const val CHANGED = "The server has other files than its manifest says: get it from elsewhere."
private const val NO_SPACE = "Delete other models or files, and try again: it goes on from where it ended."

/** A download or an import that the user ended. */
class Stopped : AppError("it was stopped", "Begin again: a download goes on from where it ended.")

/**
 * One file of a bundle, fetched so that whatever happens it is either absent or right.
 *
 * Bytes go to `NAME.part`; only what continues it exactly is appended, all of it is hashed, also
 * what an earlier run left, and the file gets its name when length and hash are the manifest's.
 *
 * @property url address of the file
 * @property target where it goes; its folder exists
 * @property entry the manifest's fingerprint
 */
class FileDownload(
    private val http: Http,
    private val url: String,
    private val token: String?,
    private val target: File,
    private val entry: FileEntry,
) {
    private val part = File(target.path + PART_ENDING)
    private val digest = MessageDigest.getInstance("SHA-256")

    /**
     * Fetch the file, or what is missing of it.
     *
     * @param isStopped asked with each piece that is read or fetched, from the same thread; true
     *     ends the download
     * @param onBytes told how many bytes of the file are there, or fewer when it begins anew
     * @throws NetworkError the server did not answer, or ended early; what came is kept
     * @throws BundleError the server sent other bytes than the manifest says, which are deleted, or
     *     the storage is full
     * @throws Stopped the user asked
     */
    fun run(isStopped: () -> Boolean, onBytes: (Long) -> Unit) {
        try {
            complete(isStopped, onBytes)
        } catch (error: IOException) {
            val message = "${part.name} cannot be written: ${error.message}"
            throw BundleError(message, NO_SPACE, error, ErrorKind.STORAGE)
        }
    }

    private fun complete(isStopped: () -> Boolean, onBytes: (Long) -> Unit) {
        if (isWhole(isStopped)) return onBytes(entry.sizeBytes)
        target.delete()
        val kept = resumed(isStopped)
        onBytes(kept)
        if (kept < entry.sizeBytes || !part.exists()) fetch(kept, isStopped, onBytes)
        finish()
    }

    private fun isWhole(isStopped: () -> Boolean): Boolean {
        if (!target.isFile || target.length() != entry.sizeBytes) return false
        val found = sha256(target) { !isStopped() } ?: throw Stopped()
        return found == entry.sha256
    }

    /** Hash what an earlier run left; return how much that is. */
    private fun resumed(isStopped: () -> Boolean): Long {
        digest.reset()
        val length = part.length()
        if (length == 0L || length > entry.sizeBytes) {
            part.delete()
            return 0
        }
        part.inputStream().use { stream ->
            val chunk = ByteArray(CHUNK_BYTES)
            while (true) {
                if (isStopped()) throw Stopped()
                val count = stream.read(chunk)
                if (count < 0) return length
                digest.update(chunk, 0, count)
            }
        }
    }

    private fun fetch(kept: Long, isStopped: () -> Boolean, onBytes: (Long) -> Unit) {
        http.get(url, token, kept).use { answer ->
            val from = when (answer.status) {
                PART -> if (continues(answer, kept)) kept else null
                WHOLE -> 0L
                NOT_SUCH_RANGE -> null
                else -> throw refusal(answer.status)
            }
            if (from != null) return receive(answer, from, isStopped, onBytes)
        }
        // The server does not go on from there: begin anew, once.
        http.get(url, token, 0).use { answer ->
            if (answer.status != WHOLE) throw refusal(answer.status)
            receive(answer, 0, isStopped, onBytes)
        }
    }

    /** Whether an answer begins where the part ends, and is of a file of the right length. */
    private fun continues(answer: HttpAnswer, kept: Long): Boolean {
        val range = answer.header("Content-Range") ?: return false
        return range.startsWith("bytes $kept-") && range.endsWith("/${entry.sizeBytes}")
    }

    private fun receive(answer: HttpAnswer, from: Long, isStopped: () -> Boolean, onBytes: (Long) -> Unit) {
        val encoding = answer.header("Content-Encoding")
        if (encoding != null && encoding != "identity") {
            throw NetworkError("${target.name} comes packed as $encoding, which was not asked for", CHANGED)
        }
        val said = answer.header("Content-Length")?.toLongOrNull()
        if (said != null && said != entry.sizeBytes - from) {
            throw wrong("has ${said + from} bytes, and the manifest says ${entry.sizeBytes}")
        }
        if (from == 0L) digest.reset()
        FileOutputStream(part, from > 0).use { output ->
            copy(answer, output, from, isStopped, onBytes)
            output.fd.sync()
        }
    }

    private fun copy(
        answer: HttpAnswer,
        output: FileOutputStream,
        from: Long,
        isStopped: () -> Boolean,
        onBytes: (Long) -> Unit,
    ) {
        val chunk = ByteArray(CHUNK_BYTES)
        var there = from
        while (true) {
            if (isStopped()) throw Stopped()
            val count = try {
                answer.body.read(chunk)
            } catch (error: IOException) {
                val message = "${target.name} broke off after $there bytes: ${error.message}"
                throw NetworkError(message, LATER, error, ErrorKind.NETWORK)
            }
            if (count < 0) break
            there += count
            if (there > entry.sizeBytes) throw wrong("is longer than the manifest's ${entry.sizeBytes} bytes")
            output.write(chunk, 0, count)
            digest.update(chunk, 0, count)
            onBytes(there)
        }
        if (there < entry.sizeBytes) {
            val message = "${target.name} ended after $there of ${entry.sizeBytes} bytes"
            throw NetworkError(message, LATER, kind = ErrorKind.NETWORK)
        }
    }

    private fun finish() {
        val found = digest.digest().toHex()
        if (found != entry.sha256) throw wrong("has other bytes than the manifest says")
        if (!part.renameTo(target)) {
            val hint = "Look whether the storage is full."
            throw BundleError("${part.name} cannot be renamed", hint, kind = ErrorKind.STORAGE)
        }
    }

    private fun wrong(fault: String): BundleError {
        part.delete()
        return BundleError("${target.name} $fault; it was deleted", CHANGED, kind = ErrorKind.WRONG_BYTES)
    }

    private fun refusal(status: Int): AppError = when (status) {
        UNAUTHORISED, FORBIDDEN -> NetworkError(
            "${target.name}: the server wants to know who asks ($status)",
            "Give a token that may read this model, and accept its licence on its page.",
            kind = ErrorKind.TOKEN_WANTED,
        )
        NOT_HTTP -> NetworkError("${target.name}: what answers is no web server", LATER)
        NOT_FOUND ->
            BundleError("${target.name} is not on the server", CHANGED, kind = ErrorKind.SERVER)
        else -> NetworkError("${target.name}: the server answered $status", LATER)
    }
}
