package org.llamaexport.app

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.app.Dialog
import android.content.ActivityNotFoundException
import android.content.ClipData
import android.content.ClipboardManager
import android.content.Context
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.Button
import android.widget.EditText
import android.widget.FrameLayout
import android.widget.Toast
import android.widget.Toolbar
import java.io.IOException

private const val QUESTION = "question"
private const val ABOUT = "about"
private const val DIALOG = "dialog"

// What is handed to another app goes through a buffer of a megabyte, two bytes a letter.
private const val MOST_SHARED_CHARS = 200_000

/** What a dialog asks. */
internal enum class Ask { EDIT, RENAME, DELETE, DOWNLOAD, MEMORY }

/** What all screens have: a bar above, room for the system's own bars, dialogs, and the app's parts. */
abstract class ScreenActivity : Activity() {
    internal val parts: Parts get() = (application as LlamaApp).parts

    protected lateinit var toolbar: Toolbar
        private set

    private class Asked(val question: Ask, val about: Bundle, val dialog: Dialog)

    private var asked: Asked? = null

    /** Show a layout under the bar; [isTop]: there is no screen to go back to. */
    protected fun showScreen(layout: Int, isTop: Boolean = false) {
        setContentView(R.layout.screen)
        toolbar = requireViewById(R.id.toolbar)
        toolbar.title = title
        if (!isTop) {
            toolbar.setNavigationIcon(R.drawable.ic_back)
            toolbar.navigationIcon?.setTint(getColor(R.color.text))
            toolbar.setNavigationContentDescription(R.string.back)
            toolbar.setNavigationOnClickListener { finish() }
        }
        toolbar.overflowIcon = getDrawable(R.drawable.ic_menu)?.apply { setTint(getColor(R.color.text)) }
        layoutInflater.inflate(layout, requireViewById<FrameLayout>(R.id.content))
        requireViewById<View>(R.id.root).setOnApplyWindowInsetsListener(::makeRoom)
    }

    /** From API 35 on the system's bars and the keyboard lie over the window. */
    private fun makeRoom(view: View, insets: WindowInsets): WindowInsets {
        if (Build.VERSION.SDK_INT >= 30) {
            val types = WindowInsets.Type.systemBars() or WindowInsets.Type.ime() or
                WindowInsets.Type.displayCutout()
            val covered = insets.getInsets(types)
            view.setPadding(covered.left, covered.top, covered.right, covered.bottom)
        }
        return insets
    }

    /**
     * Ask something in a dialog, which is there again, with what was typed, after the screen was turned.
     *
     * @param about what it is about; it outlives the process
     */
    internal fun ask(question: Ask, about: Bundle) {
        // Who asks may have read a file first, and the screen be gone; or it is a second tap.
        if (isFinishing || isDestroyed || asked != null) return
        makeAsked(question, about).show()
    }

    /** Make the dialog for which [ask] was called. */
    internal open fun makeDialog(question: Ask, about: Bundle): Dialog =
        throw IllegalStateException("this screen does not ask $question")

    private fun makeAsked(question: Ask, about: Bundle): Dialog {
        val isOfMemory = question == Ask.MEMORY
        val dialog = if (isOfMemory) gateDialog(about) else makeDialog(question, about)
        asked = Asked(question, about, dialog)
        dialog.setOnDismissListener { asked = null }
        return dialog
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        val open = asked ?: return
        state.putString(QUESTION, open.question.name)
        state.putBundle(ABOUT, open.about)
        state.putBundle(DIALOG, open.dialog.onSaveInstanceState())
    }

    override fun onRestoreInstanceState(state: Bundle) {
        super.onRestoreInstanceState(state)
        val question = Ask.entries.find { it.name == state.getString(QUESTION) } ?: return
        val dialog = makeAsked(question, state.getBundle(ABOUT) ?: Bundle())
        state.getBundle(DIALOG)?.let(dialog::onRestoreInstanceState)
    }

    override fun onDestroy() {
        asked?.dialog?.dismiss()
        super.onDestroy()
    }

    /** Make a dialog that asks for a text; [onText] is told what was typed. */
    protected fun textDialog(title: Int, text: String, button: Int, onText: (String) -> Unit): Dialog {
        val field = EditText(this, null, 0, R.style.Field)
        // What has an id is there again after the screen was turned.
        field.id = R.id.text
        field.setText(text)
        field.setSelection(text.length)
        val side = resources.getDimensionPixelSize(R.dimen.dialog_side)
        val box = FrameLayout(this).apply {
            setPadding(side, side / 2, side, 0)
            addView(field)
        }
        return AlertDialog.Builder(this)
            .setTitle(title)
            .setView(box)
            .setPositiveButton(button) { _, _ -> onText(field.text.toString()) }
            .setNegativeButton(R.string.cancel, null)
            .create()
    }

    /** Let another app choose something; [onChosen] is told what. */
    protected fun choose(ask: Intent, request: Int) {
        try {
            @Suppress("DEPRECATION")
            startActivityForResult(ask, request)
        } catch (_: ActivityNotFoundException) {
            say(getString(R.string.no_file_app))
        }
    }

    @Deprecated("The framework's own way; the newer one is of a library.")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val place = data?.data ?: return
        if (result == RESULT_OK) onChosen(request, place)
    }

    /** Hear what was chosen; the process may have been another one when it was asked. */
    protected open fun onChosen(request: Int, place: Uri) = Unit

    /** Let the user choose where a file is to be saved. */
    protected fun askPlace(request: Int, name: String, type: String) = choose(
        Intent(Intent.ACTION_CREATE_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE)
            .setType(type).putExtra(Intent.EXTRA_TITLE, name),
        request,
    )

    /** Save a text, which [text] reads on the files' thread; null: it is there no more. */
    protected fun save(place: Uri, text: () -> String?) = parts.files.run({
        val content = text() ?: throw IOException("what was to be saved is gone")
        val output = contentResolver.openOutputStream(place, "wt") ?: throw IOException("it cannot be opened")
        output.use { it.write(content.toByteArray()) }
    }) { outcome -> say(outcome.error?.inWords(this) ?: getString(R.string.saved)) }

    /** Let the user send a text to another app. */
    protected fun share(subject: String, text: String, type: String = "text/plain") {
        if (text.length > MOST_SHARED_CHARS) return say(getString(R.string.too_long_to_share))
        val send = Intent(Intent.ACTION_SEND).setType(type)
            .putExtra(Intent.EXTRA_SUBJECT, subject).putExtra(Intent.EXTRA_TEXT, text)
        startActivity(Intent.createChooser(send, subject))
    }

    protected fun shareLog() = parts.files.run({ parts.log.read() }) { outcome ->
        val log = outcome.value
        if (log != null && !isDestroyed) share(getString(R.string.log_subject), parts.report(log))
    }

    protected fun copyText(text: String) {
        service(ClipboardManager::class.java).setPrimaryClip(ClipData.newPlainText("", text))
        // From API 33 on the system says so itself.
        if (Build.VERSION.SDK_INT < 33) say(getString(R.string.copied))
    }

    /** Ask once whether the app may show what it does while another one is on the screen. */
    protected fun askForNotifications() {
        if (Build.VERSION.SDK_INT < 33 || parts.settings.hasAskedNotifications) return
        parts.settings.hasAskedNotifications = true
        requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
    }

    internal fun say(text: String) = Toast.makeText(this, text, Toast.LENGTH_LONG).show()
}

/** Return a service that every phone has. */
internal fun <T : Any> Context.service(kind: Class<T>): T =
    checkNotNull(getSystemService(kind)) { "this phone has no ${kind.simpleName}" }

/** Put a button at the end of a row. */
internal fun ViewGroup.addButton(text: String, style: Int = R.style.App_Button, onClick: () -> Unit): Button {
    val button = Button(context, null, 0, style)
    button.text = text
    button.setOnClickListener { onClick() }
    addView(button)
    return button
}
