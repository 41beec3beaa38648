package org.llamaexport.app

import android.content.ContentProvider
import android.content.ContentValues
import android.content.pm.ProviderInfo
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.File
import org.robolectric.Robolectric

/** Documents of one folder, as the system's file app gives them. */
class FolderProvider : ContentProvider() {
    override fun query(
        uri: Uri,
        columns: Array<String>?,
        selection: String?,
        arguments: Array<String>?,
        order: String?,
    ): Cursor {
        threads += Thread.currentThread().name
        val wanted = columns ?: arrayOf(Document.COLUMN_DISPLAY_NAME, Document.COLUMN_DOCUMENT_ID)
        val rows = MatrixCursor(wanted)
        val isOfChildren = uri.lastPathSegment == "children"
        for (file in if (isOfChildren) folder.listFiles().orEmpty().asList() else listOf(folder)) {
            val id = "root/${file.name}"
            rows.addRow(wanted.map { if (it == Document.COLUMN_DOCUMENT_ID) id else file.name })
        }
        return rows
    }

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        val name = DocumentsContract.getDocumentId(uri).substringAfterLast('/')
        return ParcelFileDescriptor.open(File(folder, name), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun onCreate(): Boolean = true

    override fun getType(uri: Uri): String? = null

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun delete(uri: Uri, selection: String?, arguments: Array<String>?): Int = 0

    override fun update(
        uri: Uri,
        values: ContentValues?,
        selection: String?,
        arguments: Array<String>?,
    ): Int = 0

    companion object {
        const val AUTHORITY = "files.of.a.test"
        lateinit var folder: File

        /** Names of the threads that asked. */
        val threads: MutableSet<String> = java.util.Collections.synchronizedSet(HashSet())

        /** Give out the files of [folder]; return the tree that a user would choose. */
        fun of(folder: File): Uri {
            this.folder = folder
            threads.clear()
            val info = ProviderInfo().apply { authority = AUTHORITY }
            Robolectric.buildContentProvider(FolderProvider::class.java).create(info)
            return DocumentsContract.buildTreeDocumentUri(AUTHORITY, "root")
        }
    }
}
