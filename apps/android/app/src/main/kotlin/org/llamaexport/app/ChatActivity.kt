package org.llamaexport.app

import android.app.AlertDialog
import android.app.Dialog
import android.os.Bundle
import android.os.SystemClock
import android.text.Editable
import android.text.TextWatcher
import android.view.MenuItem
import android.view.View
import android.view.ViewConfiguration
import android.widget.EditText
import android.widget.ImageButton
import android.widget.ListView
import android.widget.TextView
import org.llamaexport.core.isBlank

private const val INDEX = "index"
private const val TEXT = "text"

/** The conversation that is open. */
class ChatActivity : ScreenActivity(), RowActions {
    private lateinit var rows: ChatRows
    private lateinit var list: ListView
    private lateinit var message: EditText
    private lateinit var send: ImageButton
    private lateinit var notices: ChatNotices
    private val look = ::render
    private val speaker = SentenceSpeaker { spoken.text = it }
    private val spoken: TextView by lazy { requireViewById(R.id.spoken) }
    private var draftCount = -1
    private var wasPending = false
    private var sentMs = 0L
    private var shown: String? = null
    private var dialog: AlertDialog? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        showScreen(R.layout.chat, isTop = true)
        toolbar.inflateMenu(R.menu.chat)
        toolbar.setOnMenuItemClickListener(::choose)
        rows = ChatRows(this, this)
        list = requireViewById(R.id.turns)
        list.adapter = rows
        message = requireViewById(R.id.message)
        send = requireViewById(R.id.send)
        notices = ChatNotices(this, parts, requireViewById(R.id.notice), ::shareLog)
        send.setOnClickListener { if (parts.session.pending != null) stopAnswer() else sendMessage() }
        message.addTextChangedListener(object : TextWatcher {
            override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit
            override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit
            override fun afterTextChanged(text: Editable) {
                parts.session.draft(text.toString())
                renderSend()
            }
        })
    }

    override fun onStart() {
        super.onStart()
        parts.session.addListener(look)
        parts.host.addListener(look)
        draftCount = -1
        render()
    }

    override fun onStop() {
        parts.session.removeListener(look)
        parts.host.removeListener(look)
        parts.session.save()
        dialog?.dismiss()
        dialog = null
        super.onStop()
    }

    override fun copy(text: String) = copyText(text)

    override fun edit(index: Int, text: String) {
        val about = Bundle()
        about.putInt(INDEX, index)
        about.putString(TEXT, text)
        ask(Ask.EDIT, about)
    }

    override fun makeDialog(question: Ask, about: Bundle): Dialog =
        textDialog(R.string.edit, about.getString(TEXT).orEmpty(), R.string.send_again) { text ->
            if (!parts.session.edit(about.getInt(INDEX), text)) sayWhyNot(text)
        }

    override fun regenerate() {
        if (!parts.session.regenerate()) sayWhyNot("x")
    }

    private fun sendMessage() {
        val text = message.text.toString()
        askForNotifications()
        if (!parts.session.send(text)) return sayWhyNot(text)
        sentMs = SystemClock.uptimeMillis()
        message.setText("")
    }

    /** The second of two quick taps finds another button than the first, and is not meant for it. */
    private fun stopAnswer() {
        val isSecondTap = SystemClock.uptimeMillis() - sentMs < ViewConfiguration.getDoubleTapTimeout()
        if (!isSecondTap) parts.session.stop()
    }

    private fun sayWhyNot(text: String) {
        val session = parts.session
        if (session.pending != null || isBlank(text)) return
        say(
            when (val state = parts.host.state) {
                is HostState.Busy -> getString(R.string.model_busy)
                is HostState.Loading -> getString(R.string.loading, state.name)
                else -> getString(R.string.load_first)
            },
        )
    }

    private fun choose(item: MenuItem): Boolean {
        when (item.itemId) {
            R.id.new_conversation -> if (!parts.session.begin()) say(getString(R.string.stop_first))
            R.id.conversations -> show<ConversationsActivity>()
            R.id.models -> show<ModelsActivity>()
            R.id.settings -> show<SettingsActivity>()
            R.id.check_model -> show<ReportActivity>()
            R.id.share_log -> shareLog()
            else -> return false
        }
        return true
    }

    private fun render() {
        val session = parts.session
        toolbar.title = session.conversation.title.ifEmpty { getString(R.string.new_conversation) }
        toolbar.subtitle = subtitle()
        val isAtEnd = list.lastVisiblePosition >= rows.count - 1
        val follows = isAtEnd || session.pending?.answer == "" || shown != session.conversation.id
        shown = session.conversation.id
        if (rows.show(session) && follows) list.setSelection(rows.count - 1)
        if (draftCount != session.draftCount) {
            draftCount = session.draftCount
            val draft = session.conversation.draft
            if (message.text.toString() != draft) message.setText(draft)
        }
        renderEmpty()
        renderSend()
        notices.render()
        speak()
        showFull()
    }

    private fun subtitle(): String = when (val state = parts.host.state) {
        is HostState.Loading -> getString(R.string.loading, state.name)
        is HostState.Ready -> getString(R.string.model_ready, state.model.name, state.model.contextTokens)
        is HostState.Busy -> getString(R.string.model_ready, state.model.name, state.model.contextTokens)
        is HostState.Failed, is HostState.Idle -> getString(R.string.no_model)
    }

    private fun renderEmpty() {
        requireViewById<View>(R.id.empty).visibility = if (rows.count == 0) View.VISIBLE else View.GONE
        if (rows.count > 0) return
        val model = parts.host.state.loaded
        requireViewById<TextView>(R.id.empty_title).setText(R.string.empty_title)
        requireViewById<TextView>(R.id.empty_text).text =
            if (model?.noChatReason == null) getString(R.string.empty_text)
            else getString(R.string.empty_continues, model.name, model.noChatReason)
    }

    private fun renderSend() {
        val isPending = parts.session.pending != null
        send.setImageResource(if (isPending) R.drawable.ic_stop else R.drawable.ic_send)
        send.contentDescription = getString(if (isPending) R.string.stop else R.string.send)
        // A model that is measured takes no message, and a tap is told so.
        val canSend = !isBlank(message.text.toString()) && parts.host.state.loaded != null
        send.isEnabled = isPending || canSend
    }

    private fun speak() {
        val asked = parts.session.pending
        if (asked != null) {
            if (!wasPending) spoken.text = getString(R.string.answering)
            speaker.update(asked.answer)
        } else if (wasPending) {
            speaker.end(parts.session.conversation.turns.lastOrNull()?.message?.text.orEmpty())
        }
        wasPending = asked != null
    }

    private fun showFull() {
        val full = parts.session.full ?: return
        if (dialog != null) return
        val overflow = full.overflow
        val builder = AlertDialog.Builder(this).setTitle(R.string.context_full).setCancelable(false)
        val kept = overflow.keptTokens
        val text = getString(R.string.context_full_text, overflow.needed, overflow.maxContext)
        if (kept != null) {
            val drop = resources.getQuantityString(
                R.plurals.context_full_drop, overflow.droppedTurns, overflow.droppedTurns, kept,
            )
            builder.setMessage("$text\n\n$drop")
            builder.setPositiveButton(R.string.drop_oldest) { _, _ -> closing { parts.session.dropOldest() } }
        } else {
            builder.setMessage("$text\n\n${getString(R.string.context_too_long)}")
        }
        if (full.index > 0) {
            builder.setNeutralButton(R.string.begin_anew) { _, _ -> closing { parts.session.beginAnew() } }
        }
        builder.setNegativeButton(R.string.shorten) { _, _ -> closing { parts.session.shorten() } }
        dialog = builder.show()
    }

    private fun closing(act: () -> Unit) {
        dialog = null
        act()
    }
}
