package org.llamaexport.core

import java.io.File

/** Name of the file that makes a folder a bundle. */
const val MANIFEST_NAME: String = "manifest.json"

private const val MOST_PATH_CHARS = 1024

/**
 * Return why a path may not stand in a manifest or an archive, or null where it may.
 *
 * A path must be relative, lead to a file inside the folder and mean the same on every system: no
 * `..`, no backslash, no drive letter, no control character.
 */
fun pathFault(path: String): String? {
    val parts = path.split('/')
    return when {
        path.isEmpty() -> "is empty"
        path.length > MOST_PATH_CHARS -> "is longer than $MOST_PATH_CHARS characters"
        path[0] == '/' || path[0] == '~' -> "is not relative"
        ".." in parts -> "leads out of the folder"
        parts.any { it.isEmpty() || it == "." } -> "has an empty part or a '.'"
        '\\' in path || ':' in path -> "holds a backslash or a colon"
        path.any { it < ' ' || it == '\u007f' } || hasHalfPair(path) ->
            "holds a control character or half a surrogate pair"
        path == MANIFEST_NAME -> "is the manifest itself"
        else -> null
    }
}

/** Return the file of a path that [pathFault] has nothing against. */
fun File.at(path: String): File = path.split('/').fold(this) { folder, part -> File(folder, part) }
