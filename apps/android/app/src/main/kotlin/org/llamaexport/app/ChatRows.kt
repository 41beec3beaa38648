package org.llamaexport.app

import android.content.Context
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.TextView
import org.llamaexport.core.Role
import org.llamaexport.core.SavedTurn

/** What a user can do with a message; [index] is its place among the turns. */
interface RowActions {
    fun copy(text: String)
    fun edit(index: Int, text: String)
    fun regenerate()
}

/** The rows of a conversation: its turns, and the question and answer that are being written. */
class ChatRows(private val context: Context, private val actions: RowActions) : BaseAdapter() {
    private data class Row(
        val index: Int,
        val role: Role,
        val text: String,
        val under: String,
        val isPending: Boolean,
        val isLast: Boolean,
    )

    private var rows: List<Row> = emptyList()

    /** Show a session; return whether anything changed. */
    fun show(session: Session): Boolean {
        val asked = session.pending
        val turns = session.conversation.turns
        val kept = if (asked == null) turns else turns.take(asked.index)
        val last = if (asked == null) turns.size - 1 else -1
        val next = kept.mapIndexed { index, turn ->
            Row(index, turn.message.role, turn.message.text, under(turn), false, index == last)
        }.toMutableList()
        if (asked != null) {
            next += Row(asked.index, Role.USER, asked.question, "", true, false)
            next += Row(asked.index + 1, Role.ASSISTANT, asked.answer, waiting(asked), true, true)
        }
        if (next == rows) return false
        rows = next
        notifyDataSetChanged()
        return true
    }

    override fun getCount(): Int = rows.size

    override fun getItem(position: Int): Any = rows[position]

    override fun getItemId(position: Int): Long = rows[position].index.toLong()

    override fun hasStableIds(): Boolean = true

    override fun getViewTypeCount(): Int = 2

    override fun getItemViewType(position: Int): Int = if (rows[position].role == Role.USER) 0 else 1

    override fun areAllItemsEnabled(): Boolean = false

    override fun isEnabled(position: Int): Boolean = false

    override fun getView(position: Int, old: View?, parent: ViewGroup): View {
        val row = rows[position]
        val layout = if (row.role == Role.USER) R.layout.row_user else R.layout.row_answer
        val view = old ?: LayoutInflater.from(context).inflate(layout, parent, false)
        view.requireViewById<TextView>(R.id.text).text = row.text
        view.requireViewById<View>(R.id.actions).visibility = if (row.isPending) View.GONE else View.VISIBLE
        view.requireViewById<View>(R.id.copy).setOnClickListener { actions.copy(row.text) }
        if (row.role == Role.USER) {
            view.requireViewById<View>(R.id.edit).setOnClickListener { actions.edit(row.index, row.text) }
        } else {
            bindAnswer(view, row)
        }
        return view
    }

    private fun bindAnswer(view: View, row: Row) {
        val figures = view.requireViewById<TextView>(R.id.figures)
        figures.text = row.under
        figures.visibility = if (row.under.isEmpty()) View.GONE else View.VISIBLE
        view.requireViewById<View>(R.id.text).visibility = if (row.text.isEmpty()) View.GONE else View.VISIBLE
        val again = view.requireViewById<View>(R.id.again)
        again.visibility = if (row.isLast) View.VISIBLE else View.GONE
        again.setOnClickListener { actions.regenerate() }
    }

    private fun under(turn: SavedTurn): String {
        if (turn.message.role == Role.USER) return ""
        val figures = turn.figures?.let { context.figuresText(it) }
        val cut = if (turn.isWhole) null else context.getString(R.string.cut_short)
        return listOfNotNull(cut, figures).joinToString(" · ")
    }

    private fun waiting(asked: Pending): String = when {
        asked.answer.isNotEmpty() -> ""
        asked.totalTokens > 0 -> context.getString(R.string.reading, asked.readTokens, asked.totalTokens)
        else -> context.getString(R.string.thinking)
    }
}
