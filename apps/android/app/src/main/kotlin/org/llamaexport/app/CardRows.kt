package org.llamaexport.app

import android.content.Context
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.TextView

/**
 * A card of a list.
 *
 * @property key the same for the same thing, whatever is said of it
 * @property isBad whether [detail] says what is wrong
 * @property buttons what can be done, with the words on it and, for a screen reader, of what
 */
class Card(
    val key: String,
    val title: String,
    val detail: String,
    val isBad: Boolean = false,
    val buttons: List<Pair<Int, () -> Unit>>,
    val onOpen: (() -> Unit)? = null,
)

/** Cards in a list. */
class CardRows(private val context: Context) : BaseAdapter() {
    private var cards: List<Card> = emptyList()
    private val ids = HashMap<String, Long>()

    fun show(next: List<Card>) {
        cards = next
        notifyDataSetChanged()
    }

    override fun getCount(): Int = cards.size

    override fun getItem(position: Int): Any = cards[position]

    override fun getItemId(position: Int): Long = ids.getOrPut(cards[position].key) { ids.size.toLong() }

    override fun hasStableIds(): Boolean = true

    override fun areAllItemsEnabled(): Boolean = false

    override fun isEnabled(position: Int): Boolean = false

    override fun getView(position: Int, old: View?, parent: ViewGroup): View {
        val card = cards[position]
        val view = old ?: LayoutInflater.from(context).inflate(R.layout.row_card, parent, false)
        view.requireViewById<TextView>(R.id.title).text = card.title
        val detail = view.requireViewById<TextView>(R.id.detail)
        detail.text = card.detail
        detail.setTextColor(context.getColor(if (card.isBad) R.color.bad else R.color.text_quiet))
        val buttons = view.requireViewById<ViewGroup>(R.id.buttons)
        buttons.removeAllViews()
        for ((label, act) in card.buttons) {
            val text = context.getString(label)
            val button = buttons.addButton(text) { act() }
            button.contentDescription = context.getString(R.string.button_of, text, card.title)
        }
        view.setOnClickListener(card.onOpen?.let { open -> View.OnClickListener { open() } })
        view.isClickable = card.onOpen != null
        return view
    }
}
