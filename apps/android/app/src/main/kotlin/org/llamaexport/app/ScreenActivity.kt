package org.llamaexport.app

import android.app.Activity
import android.content.ClipData
import android.content.ClipboardManager
import android.content.Context
import android.content.Intent
import android.os.Build
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.Button
import android.widget.FrameLayout
import android.widget.Toast
import android.widget.Toolbar
import org.llamaexport.core.AppError

/** What all screens have: a bar above, room for the system's own bars, and the app's parts. */
abstract class ScreenActivity : Activity() {
    protected val parts: Parts get() = (application as LlamaApp).parts

    protected lateinit var toolbar: Toolbar
        private set

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

    /** Let the user send a text to another app. */
    protected fun share(subject: String, text: String, type: String = "text/plain") {
        val send = Intent(Intent.ACTION_SEND).setType(type)
            .putExtra(Intent.EXTRA_SUBJECT, subject).putExtra(Intent.EXTRA_TEXT, text)
        startActivity(Intent.createChooser(send, subject))
    }

    protected fun shareLog() = share(getString(R.string.log_subject), parts.report())

    protected fun copyText(text: String) {
        service(ClipboardManager::class.java).setPrimaryClip(ClipData.newPlainText("", text))
        // From API 33 on the system says so itself.
        if (Build.VERSION.SDK_INT < 33) say(getString(R.string.copied))
    }

    protected fun say(text: String) = Toast.makeText(this, text, Toast.LENGTH_LONG).show()
}

/** Return an error and what to do about it, as a person reads it. */
internal fun AppError.inWords(): String {
    val text = message.orEmpty()
    // A file's name stays as it is.
    val isWord = text.takeWhile { it != ' ' }.all { it.isLetter() }
    val sentence = (if (isWord) text.replaceFirstChar { it.uppercaseChar() } else text).trimEnd('.') + "."
    return if (hint.isEmpty()) sentence else "$sentence\n$hint"
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
