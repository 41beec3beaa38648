package org.llamaexport.app

import android.app.AlertDialog
import android.app.Dialog
import android.net.Uri
import android.os.Bundle
import android.text.format.DateUtils
import android.view.View
import android.view.ViewGroup
import android.widget.ListView
import android.widget.TextView
import org.llamaexport.core.Conversation
import org.llamaexport.core.KeptConversation
import org.llamaexport.core.isBlank

/** The conversations that are kept. */
class ConversationsActivity : ScreenActivity() {
    private lateinit var rows: CardRows
    private var exported: String? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        exported = state?.getString(ID)
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
        outcome.error?.let { say(it.inWords(this)) }
    }

    private fun card(kept: KeptConversation): Card = when (kept) {
        is KeptConversation.Damaged -> Card(
            key = kept.id,
            title = kept.id,
            detail = "${getString(R.string.damaged_conversation)}\n${kept.reason}",
            isBad = true,
            buttons = listOf(R.string.delete to { ask(Ask.DELETE, kept.id, kept.id) }),
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
                R.string.rename to { ask(Ask.RENAME, conversation.id, conversation.title) },
                R.string.share to { share(title, conversation.toText()) },
                R.string.export to { export(conversation) },
                R.string.delete to { ask(Ask.DELETE, conversation.id, title) },
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

    override fun makeDialog(question: Ask, about: Bundle): Dialog {
        val id = about.getString(ID).orEmpty()
        val title = about.getString(TITLE).orEmpty()
        if (question == Ask.RENAME) {
            return textDialog(R.string.rename, title, R.string.rename) { rename(id, it.trim()) }
        }
        return AlertDialog.Builder(this)
            .setTitle(getString(R.string.delete_conversation, title))
            .setPositiveButton(R.string.delete) { _, _ -> delete(id) }
            .setNegativeButton(R.string.cancel, null)
            .create()
    }

    private fun ask(question: Ask, id: String, title: String) {
        val about = Bundle()
        about.putString(ID, id)
        about.putString(TITLE, title)
        ask(question, about)
    }

    private fun rename(id: String, title: String) {
        if (isBlank(title)) return
        parts.session.changedInStore(id, title)
        parts.files.run({ parts.store.rename(id, title) }) { outcome ->
            outcome.error?.let { say(it.inWords(this)) }
            read()
        }
    }

    private fun delete(id: String) {
        if (parts.session.pending != null && parts.session.conversation.id == id) {
            return say(getString(R.string.stop_first))
        }
        parts.session.changedInStore(id, null)
        parts.files.run({ parts.store.delete(id) }) { read() }
    }

    private fun export(conversation: Conversation) {
        exported = conversation.id
        askPlace(SAVE, "${conversation.title.ifEmpty { conversation.id }}.txt", "text/plain")
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putString(ID, exported)
    }

    override fun onChosen(request: Int, place: Uri) {
        val id = exported
        save(place) { id?.let { parts.store.load(it).toText() } }
    }

    private companion object {
        const val ID = "id"
        const val TITLE = "title"
        const val SAVE = 1
    }
}
