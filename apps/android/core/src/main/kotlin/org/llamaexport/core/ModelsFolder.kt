package org.llamaexport.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.channels.OverlappingFileLockException

/** What is appended to the name of a file that is not whole yet. */
const val PART_ENDING: String = ".part"

/** What is appended to a model's name while it is fetched, imported, or kept from a second fetcher. */
internal const val DOWNLOAD_ENDING: String = ".download"
internal const val IMPORT_ENDING: String = ".import"
internal const val LOCK_ENDING: String = ".lock"
private val OWN_ENDINGS = listOf(DOWNLOAD_ENDING, IMPORT_ENDING, LOCK_ENDING)

/** Bytes of storage that are left to the system and to the app itself. */
internal const val SPARE_BYTES: Long = 32L * 1024 * 1024

/**
 * Refuse a name that is no name of one folder.
 *
 * @throws BadInput it is none
 */
fun requireFolderName(name: String) {
    val fault = pathFault(name) ?: if ('/' in name) "holds a slash" else return
    throw BadInput("the name '$name' $fault", "Give a name of letters, digits, '-', '_' and '.'.")
}

/** Return whether a name in the folder of models is that of something unfinished, and no model's. */
fun isUnfinished(name: String): Boolean = OWN_ENDINGS.any { name.lowercase().endsWith(it) }

/**
 * Return the folder of a model that is about to come into [models].
 *
 * @throws BadInput the name is none
 * @throws BundleError a model of that name is there
 */
internal fun placeOfNew(models: File, name: String): File {
    requireFolderName(name)
    if (isUnfinished(name)) {
        val message = "the name '$name' ends like that of an unfinished download"
        throw BadInput(message, "Give a name without ${OWN_ENDINGS.joinToString()} at its end.")
    }
    val place = File(models, name)
    if (place.exists()) {
        val hint = "Delete it first, or give the new one another name."
        throw BundleError("a model named $name is there already", hint, kind = ErrorKind.NAME_TAKEN)
    }
    return place
}

/** Refuse what the storage has no room for. @throws BundleError it is too little */
internal fun requireSpace(missingBytes: Long, freeBytes: Long) {
    val needed = missingBytes + SPARE_BYTES
    if (needed > freeBytes) {
        throw BundleError(
            "the model needs $needed more bytes of storage, and $freeBytes are free",
            "Delete other models or files, and try again.",
            kind = ErrorKind.STORAGE,
        )
    }
}

/**
 * Work on a model that is about to come, while nobody else does, in this process or another.
 *
 * @throws BundleError somebody does, or what [work] writes cannot be written
 */
internal fun <T> whileAlone(models: File, name: String, work: () -> T): T = try {
    // Beside the folder that is filled, in which every name may be one of the bundle's files.
    val place = File(models, name + LOCK_ENDING)
    RandomAccessFile(place, "rw").use { file ->
        val lock = try {
            file.channel.tryLock()
        } catch (_: OverlappingFileLockException) {
            null
        }
        if (lock == null) {
            val hint = "Wait for it, or stop it first."
            throw BundleError("$name is just being fetched or copied", hint, kind = ErrorKind.OTHER)
        }
        try {
            work()
        } finally {
            place.delete()
        }
    }
} catch (error: IOException) {
    val hint = "Look whether the storage is full, delete other models or files, and try again."
    throw BundleError("$name cannot be written: ${error.message}", hint, error, ErrorKind.STORAGE)
}

/** Write a file whose bytes are stored before this returns; what is renamed then is never empty. */
internal fun File.writeStored(content: ByteArray) = FileOutputStream(this).use { output ->
    output.write(content)
    output.fd.sync()
}
