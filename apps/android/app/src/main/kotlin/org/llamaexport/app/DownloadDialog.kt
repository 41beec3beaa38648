package org.llamaexport.app

import android.app.Activity
import android.app.AlertDialog
import android.app.Dialog
import android.view.View
import android.widget.EditText
import android.widget.TextView
import org.llamaexport.core.AppError
import org.llamaexport.core.BadInput
import org.llamaexport.core.BundleAddress
import org.llamaexport.core.requireFolderName

private const val HUB = "https://huggingface.co"

/**
 * Return the address that a user typed: that of a folder on a server, or a repository of the Hub.
 *
 * @param place an address, or owner/name
 * @param folder folder in the repository; empty: its top
 * @throws BadInput it is neither
 */
fun addressOf(place: String, folder: String, token: String): BundleAddress {
    val secret = token.trim().ifEmpty { null }
    val typed = place.trim()
    if (typed.startsWith("http://") || typed.startsWith("https://")) {
        val inner = folder.trim().trim('/')
        val base = typed.removeSuffix("/manifest.json").trimEnd('/')
        return BundleAddress(if (inner.isEmpty()) base else BundleAddress(base).of(inner), secret)
    }
    return BundleAddress.onHub(HUB, typed, folder.trim().trim('/'), token = secret)
}

/** Asks where a model is to be fetched from, and fetches it. */
class DownloadDialog(private val activity: Activity, private val parts: Parts) {
    /** Make it; [name]: that of an unfinished download, whose address may be known; null: a new one. */
    fun make(name: String?): Dialog {
        val view = activity.layoutInflater.inflate(R.layout.download, null)
        if (name != null) {
            val named = view.requireViewById<EditText>(R.id.name)
            named.setText(name)
            named.isEnabled = false
            view.requireViewById<EditText>(R.id.place).setText(parts.settings.downloadAddress(name).orEmpty())
        }
        val dialog = AlertDialog.Builder(activity)
            .setTitle(R.string.download)
            .setView(view)
            .setPositiveButton(R.string.download, null)
            .setNegativeButton(R.string.cancel, null)
            .create()
        // Set here, a button leaves the dialog open: what is typed stays where it is wrong.
        dialog.setOnShowListener {
            dialog.getButton(AlertDialog.BUTTON_POSITIVE).setOnClickListener {
                val fault = faultOf(view) ?: return@setOnClickListener dialog.dismiss()
                val shown = view.requireViewById<TextView>(R.id.fault)
                shown.text = fault
                shown.visibility = View.VISIBLE
            }
        }
        return dialog
    }

    /** Begin to fetch what is typed; return why not, or null. */
    private fun faultOf(view: View): String? = try {
        val address = addressOf(text(view, R.id.place), text(view, R.id.folder), text(view, R.id.token))
        val wanted = text(view, R.id.name).trim().ifEmpty { nameOf(address) }
        requireFolderName(wanted)
        if (parts.jobs.download(address, wanted)) null else activity.getString(R.string.one_at_a_time)
    } catch (error: AppError) {
        error.inWords(activity)
    }

    private fun text(view: View, id: Int): String = view.requireViewById<EditText>(id).text.toString()

    /** A name out of the last parts of an address; `main` says nothing. */
    private fun nameOf(address: BundleAddress): String {
        val parts = address.base.substringAfter("://").split('/').drop(1)
            .filter { it.isNotEmpty() && it != "resolve" && it != "main" }
        return this.parts.library.freeName(parts.takeLast(2).joinToString("-"))
    }
}
