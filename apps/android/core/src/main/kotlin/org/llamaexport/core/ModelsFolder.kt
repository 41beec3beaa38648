package org.llamaexport.core

import java.io.File

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

/**
 * Return the folder of a model that is about to come into [models].
 *
 * @throws BadInput the name is none
 * @throws BundleError a model of that name is there
 */
internal fun placeOfNew(models: File, name: String): File {
    requireFolderName(name)
    val place = File(models, name)
    if (place.exists()) {
        val hint = "Delete it first, or give the new one another name."
        throw BundleError("a model named $name is there already", hint)
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
        )
    }
}
