package org.llamaexport.app

import android.app.AlertDialog
import android.os.Bundle
import android.text.format.DateUtils
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.FrameLayout
import android.widget.ListView
import android.widget.TextView
import org.llamaexport.core.Conversation
import org.llamaexport.core.KeptConversation
import org.llamaexport.core.isBlank

/** The conversations that are kept. */
class ConversationsActivity : ScreenActivity() {
    private lateinit var rows: CardRows

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        showScreen(R.layout.list)
        requireViewById<ViewGroup>(R.id.buttons)
            .addButton(getString(R.string.new_conversation), R.style.App_Button_Filled) { begin() }
        rows = CardRows(this)
        requireViewById<ListView>(R.id.rows).adapter = rows
    }

    override fun onStart() {
        super.onStart()
        parts.session.save()
        read()
    }

    private fun begin() {
        if (parts.session.begin()) finish() else say(getString(R.string.stop_first))
    }

    private fun read() = parts.files.run({ parts.store.list() }) { outcome ->
        val found = outcome.value.orEmpty()
        rows.show(found.map(::card))
        val empty = requireViewById<TextView>(R.id.empty)
        empty.visibility = if (found.isEmpty()) View.VISIBLE else View.GONE
        empty.setText(R.string.no_conversations)
        outcome.error?.let { say(it.inWords()) }
    }

    private fun card(kept: KeptConversation): Card = when (kept) {
        is KeptConversation.Damaged -> Card(
            key = kept.id,
            title = kept.id,
            detail = kept.reason,
            isBad = true,
            buttons = listOf(R.string.delete to { askDelete(kept.id, kept.id) }),
        )
        is KeptConversation.Sound -> soundCard(kept.conversation)
    }

    private fun soundCard(conversation: Conversation): Card {
        val title = conversation.title.ifEmpty { getString(R.string.draft) }
        val changed = DateUtils.getRelativeTimeSpanString(conversation.changedMs).toString()
        val messages = resources.getQuantityString(
            R.plurals.messages, conversation.turns.size, conversation.turns.size,
        )
        val detail = listOf(changed, messages, conversation.model).filter { it.isNotEmpty() }
        return Card(
            key = conversation.id,
            title = title,
            detail = detail.joinToString(" · "),
            buttons = listOf(
                R.string.open to { show(conversation.id) },
                R.string.rename to { askRename(conversation) },
                R.string.share to { share(title, conversation.toText()) },
                R.string.delete to { askDelete(conversation.id, title) },
            ),
            onOpen = { show(conversation.id) },
        )
    }

    private fun show(id: String) {
        if (parts.session.pending != null && parts.session.conversation.id != id) {
            return say(getString(R.string.stop_first))
        }
        if (parts.session.conversation.id != id) parts.session.open(id)
        finish()
    }

    private fun askRename(conversation: Conversation) {
        val field = EditText(this, null, 0, R.style.Field)
        field.setText(conversation.title)
        val side = resources.getDimensionPixelSize(R.dimen.dialog_side)
        val box = FrameLayout(this).apply {
            setPadding(side, side / 2, side, 0)
            addView(field)
        }
        AlertDialog.Builder(this)
            .setTitle(R.string.rename)
            .setView(box)
            .setPositiveButton(R.string.rename) { _, _ ->
                rename(conversation.id, field.text.toString().trim())
            }
            .setNegativeButton(R.string.cancel, null)
            .show()
    }

    private fun rename(id: String, title: String) {
        if (isBlank(title)) return
        parts.session.changedInStore(id, title)
        parts.files.run({ parts.store.rename(id, title) }) { outcome ->
            outcome.error?.let { say(it.inWords()) }
            read()
        }
    }

    private fun askDelete(id: String, title: String) {
        if (parts.session.pending != null && parts.session.conversation.id == id) {
            return say(getString(R.string.stop_first))
        }
        AlertDialog.Builder(this)
            .setTitle(getString(R.string.delete_conversation, title))
            .setPositiveButton(R.string.delete) { _, _ ->
                parts.session.changedInStore(id, null)
                parts.files.run({ parts.store.delete(id) }) { read() }
            }
            .setNegativeButton(R.string.cancel, null)
            .show()
    }
}
