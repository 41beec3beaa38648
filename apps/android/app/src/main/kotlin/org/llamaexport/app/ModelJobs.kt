package org.llamaexport.app

import android.content.ContentResolver
import android.net.Uri
import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import android.provider.DocumentsContract
import android.provider.OpenableColumns
import java.io.InputStream
import java.util.concurrent.CopyOnWriteArrayList
import org.llamaexport.core.AppError
import org.llamaexport.core.BadInput
import org.llamaexport.core.Bundle
import org.llamaexport.core.BundleAddress
import org.llamaexport.core.BundleFiles
import org.llamaexport.core.BundleImport
import org.llamaexport.core.DownloadProgress
import org.llamaexport.core.Downloader
import org.llamaexport.core.ErrorKind
import org.llamaexport.core.Stopped

private const val TELL_MS = 200L

/** What is being fetched, and how far it is. */
data class ModelJob(val name: String, val progress: DownloadProgress?)

/**
 * Brings models onto the phone: one at a time, whatever screen is shown.
 *
 * All is called on the main thread; the work is done on one of its own.
 *
 * @param work thread of what is fetched
 * @param files thread of what is soon done
 */
class ModelJobs(
    private val library: ModelLibrary,
    private val settings: AppSettings,
    private val resolver: ContentResolver,
    private val work: Background,
    private val files: Background,
    private val downloader: Downloader,
) {
    private val main = Handler(Looper.getMainLooper())
    private val listeners = CopyOnWriteArrayList<() -> Unit>()

    // Secrets stay in memory.
    private val tokens = HashMap<String, String>()

    @Volatile
    private var isStopped = false
    private var toldMs = 0L

    // Downloads whose servers want a token, or another one.
    private val refused = HashSet<String>()

    /** Called when something begins to be fetched. */
    var onBegin: () -> Unit = {}

    /** What is being fetched; null: nothing. */
    var job: ModelJob? = null
        private set

    /** Why the last one failed; null: it did not, or it was read. */
    var error: AppError? = null
        private set

    fun addListener(listener: () -> Unit) {
        listeners += listener
    }

    fun removeListener(listener: () -> Unit) {
        listeners -= listener
    }

    /** Fetch a bundle, or go on fetching it; false: something else is being fetched. */
    fun download(address: BundleAddress, name: String): Boolean {
        if (job != null) return false
        settings.keepDownloadAddress(name, address.base)
        address.token?.let { tokens[name] = it }
        refused -= name
        return begin(name) { tell -> downloader.fetch(address, name, { isStopped }, { tell(it) }) }
    }

    /** Go on with a download that did not end; false: where it comes from, or a token, must be asked. */
    fun goOn(name: String): Boolean {
        if (name in refused) return false
        val base = settings.downloadAddress(name) ?: return false
        return download(BundleAddress(base, tokens[name]), name)
    }

    /** Return the names of downloads that did not end; it reads files. */
    fun unfinished(): List<String> = downloader.unfinished()

    /** Delete what a download left; [onEnd] is told when it is gone. */
    fun discard(name: String, onEnd: () -> Unit) {
        if (job?.name == name) return
        settings.keepDownloadAddress(name, null)
        // On the work's own thread it would wait for what is being fetched.
        files.run({ downloader.discard(name) }) { onEnd() }
    }

    /** Copy the bundle in a folder that the user chose. */
    fun importFolder(tree: Uri): Boolean = begin(guess(tree)) { tell ->
        val name = named(nameOf(treeRoot(tree)))
        BundleImport(library.own).fromFolder(DocumentFiles(resolver, tree), name) { goesOn(tell, it) }
    }

    /** Unpack the zip that the user chose. */
    fun importZip(document: Uri): Boolean = begin(guess(document)) { tell ->
        val name = named(nameOf(document).removeSuffix(".zip"))
        val input = open(resolver, document)
            ?: throw BadInput("the file $name cannot be opened", "Choose it again.")
        val size = sizeOf(document)
        input.use { stream ->
            BundleImport(library.own).fromZip(stream, name, size) { goesOn(tell, it) }
        }
    }

    /** End what is being fetched; a download can go on later. */
    fun stop() {
        isStopped = true
    }

    /** Hear that the error was read. */
    fun dismiss() {
        error = null
        tell()
    }

    private fun begin(name: String, fetch: ((DownloadProgress) -> Unit) -> Bundle): Boolean {
        requireMain()
        if (job != null) return false
        isStopped = false
        error = null
        job = ModelJob(name, null)
        tell()
        onBegin()
        work.run({
            library.own.mkdirs()
            fetch(::progress)
        }) { outcome ->
            job = null
            error = outcome.error.takeIf { it !is Stopped }
            if (outcome.error == null) settings.keepDownloadAddress(name, null)
            if (outcome.error?.kind == ErrorKind.TOKEN_WANTED) refused += name
            tell()
        }
        return true
    }

    private fun goesOn(tell: (DownloadProgress) -> Unit, progress: DownloadProgress): Boolean {
        tell(progress)
        return !isStopped
    }

    private fun progress(progress: DownloadProgress) {
        val now = SystemClock.uptimeMillis()
        if (now - toldMs < TELL_MS) return
        toldMs = now
        main.post {
            job = job?.copy(progress = progress)
            tell()
        }
    }

    /** What a place seems to be called: who knows it may be slow to ask, and is asked on the thread. */
    private fun guess(place: Uri): String =
        place.lastPathSegment.orEmpty().substringAfterLast('/').substringAfterLast(':')

    /** Return a name for the model that comes, and show it. */
    private fun named(wanted: String): String = library.freeName(wanted).also { name ->
        main.post {
            job = job?.copy(name = name)
            tell()
        }
    }

    private fun treeRoot(tree: Uri): Uri =
        DocumentsContract.buildDocumentUriUsingTree(tree, DocumentsContract.getTreeDocumentId(tree))

    private fun nameOf(document: Uri): String =
        column(resolver, document, OpenableColumns.DISPLAY_NAME) { it } ?: document.lastPathSegment.orEmpty()

    private fun sizeOf(document: Uri): Long =
        column(resolver, document, OpenableColumns.SIZE) { it.toLongOrNull() } ?: 0L

    private fun tell() = listeners.forEach { it() }
}

/** The files under a tree of documents that the user chose, found by their names. */
internal class DocumentFiles(private val resolver: ContentResolver, private val tree: Uri) : BundleFiles {
    private val children = HashMap<String, Map<String, String>>()

    override fun open(path: String): InputStream? {
        var id = DocumentsContract.getTreeDocumentId(tree)
        for (part in path.split('/')) id = childrenOf(id)[part] ?: return null
        return open(resolver, DocumentsContract.buildDocumentUriUsingTree(tree, id))
    }

    private fun childrenOf(parent: String): Map<String, String> = children.getOrPut(parent) {
        val place = DocumentsContract.buildChildDocumentsUriUsingTree(tree, parent)
        val columns = arrayOf(
            DocumentsContract.Document.COLUMN_DISPLAY_NAME,
            DocumentsContract.Document.COLUMN_DOCUMENT_ID,
        )
        val found = HashMap<String, String>()
        resolver.query(place, columns, null, null, null)?.use { rows ->
            while (rows.moveToNext()) found[rows.getString(0)] = rows.getString(1)
        }
        found
    }
}

private fun open(resolver: ContentResolver, document: Uri): InputStream? = try {
    resolver.openInputStream(document)
} catch (error: SecurityException) {
    throw BadInput("the app may not read it any more: ${error.message}", "Choose it again.", error)
}

private fun <T> column(
    resolver: ContentResolver,
    document: Uri,
    name: String,
    read: (String) -> T?,
): T? = try {
    resolver.query(document, arrayOf(name), null, null, null)?.use { rows ->
        if (rows.moveToFirst()) rows.getString(0)?.let(read) else null
    }
} catch (_: IllegalArgumentException) {
    null
}
