package org.llamaexport.app

import android.app.Activity
import android.app.AlertDialog
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

/** Asks where a model is to be fetched from. */
class DownloadDialog(private val activity: Activity, private val parts: Parts) {
    /**
     * Show it.
     *
     * @param name name of an unfinished download, whose address is known or asked for; null: a new one
     * @param onAddress told what was typed, when it is sound
     */
    fun show(name: String?, onAddress: (BundleAddress, String) -> Unit) {
        val view = activity.layoutInflater.inflate(R.layout.download, null)
        val place = view.requireViewById<EditText>(R.id.place)
        val named = view.requireViewById<EditText>(R.id.name)
        if (name != null) {
            named.setText(name)
            named.isEnabled = false
            place.setText(parts.settings.downloadAddress(name).orEmpty())
        }
        val dialog = AlertDialog.Builder(activity)
            .setTitle(R.string.download)
            .setView(view)
            .setPositiveButton(R.string.download, null)
            .setNegativeButton(R.string.cancel, null)
            .show()
        // Set here, a button leaves the dialog open: what is typed stays where it is wrong.
        dialog.getButton(AlertDialog.BUTTON_POSITIVE).setOnClickListener {
            val fault = view.requireViewById<TextView>(R.id.fault)
            try {
                val typed = text(view, R.id.place)
                val address = addressOf(typed, text(view, R.id.folder), text(view, R.id.token))
                val wanted = named.text.toString().trim().ifEmpty { nameOf(address) }
                requireFolderName(wanted)
                onAddress(address, wanted)
                dialog.dismiss()
            } catch (error: AppError) {
                fault.text = error.inWords()
                fault.visibility = View.VISIBLE
            }
        }
    }

    private fun text(view: View, id: Int): String = view.requireViewById<EditText>(id).text.toString()

    /** A name out of the last parts of an address; `main` says nothing. */
    private fun nameOf(address: BundleAddress): String {
        val parts = address.base.substringAfter("://").split('/').drop(1)
            .filter { it.isNotEmpty() && it != "resolve" && it != "main" }
        return this.parts.library.freeName(parts.takeLast(2).joinToString("-"))
    }
}
