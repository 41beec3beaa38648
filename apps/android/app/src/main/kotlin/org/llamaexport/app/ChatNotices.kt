package org.llamaexport.app

import android.text.method.ScrollingMovementMethod
import android.view.View
import android.view.ViewGroup
import android.widget.TextView
import java.io.File
import org.llamaexport.core.AppError
import org.llamaexport.core.Bundle

/** The card above a conversation: what went wrong, or what is missing, and what to do. */
class ChatNotices(
    private val activity: ScreenActivity,
    private val parts: Parts,
    private val card: View,
    private val shareLog: () -> Unit,
) {
    private class Notice(val text: String, val buttons: List<Pair<Int, () -> Unit>>)

    private val text: TextView = card.requireViewById(R.id.notice_text)
    private val buttons: ViewGroup = card.requireViewById(R.id.notice_buttons)
    private var shown: String? = null

    init {
        text.movementMethod = ScrollingMovementMethod()
        // It scrolls, and does nothing when it is touched.
        text.isClickable = false
        text.isLongClickable = false
    }

    /** Show the one that matters most; the others wait. */
    fun render() {
        val notice = problem() ?: ended() ?: model()
        card.visibility = if (notice == null) View.GONE else View.VISIBLE
        val key = notice?.let { it.text + it.buttons.map { button -> button.first } }
        if (key == shown || notice == null) {
            shown = key
            return
        }
        shown = key
        text.text = notice.text
        text.scrollTo(0, 0)
        buttons.removeAllViews()
        for ((label, act) in notice.buttons) buttons.addButton(activity.getString(label)) { act() }
    }

    private fun problem(): Notice? {
        val error = parts.session.problem ?: return null
        val buttons = listOf(R.string.ok to parts.session::dismiss, R.string.share_log to shareLog)
        return Notice(error.inWords(activity), buttons)
    }

    private fun ended(): Notice? {
        val exit = parts.lastExit
        val name = parts.endedLoading
        if (exit == null && name == null) return null
        val system = exit?.description?.takeIf { it.isNotEmpty() }
            ?.let { activity.getString(R.string.exit_system, it) }
        val words = listOfNotNull(
            exit?.let { activity.getString(it.words) },
            name?.let { activity.getString(R.string.exit_loading, it) },
            system,
        )
        val done = {
            parts.lastExit = null
            parts.endedLoading = null
            render()
        }
        return Notice(words.joinToString(" "), listOf(R.string.ok to done, R.string.share_log to shareLog))
    }

    private fun model(): Notice? = when (val state = parts.host.state) {
        is HostState.Failed -> Notice(
            state.error.inWords(activity),
            listOf(
                R.string.models to { activity.show<ModelsActivity>() },
                R.string.settings to { activity.show<SettingsActivity>() },
                R.string.share_log to shareLog,
            ),
        )
        is HostState.Idle -> idle(state)
        is HostState.Loading ->
            if (state.size == 0L) null
            else Notice(checking(state), emptyList())
        else -> null
    }

    private fun checking(state: HostState.Loading): String = activity.getString(
        R.string.checking, state.name, activity.sizeText(state.checked), activity.sizeText(state.size),
    )

    private fun idle(state: HostState.Idle): Notice? {
        if (!parts.hasBegun) return null
        val folder = parts.settings.model.takeIf { it.isNotEmpty() }?.let(::File)
        val models = R.string.choose_model to { activity.show<ModelsActivity>() }
        if (folder == null) return Notice(activity.getString(R.string.no_model_text), listOf(models))
        val words = if (state.freed != null) R.string.freed else R.string.not_loaded
        return Notice(
            activity.getString(words, folder.name), listOf(R.string.load to { load(folder) }, models),
        )
    }

    private fun load(folder: File) = parts.files.run({ Bundle.open(folder).manifest }) { outcome ->
        val manifest = outcome.value
        if (manifest != null) activity.loadGated(folder, manifest) else fail(outcome.error)
    }

    private fun fail(error: AppError?) = parts.session.fail(error)
}
