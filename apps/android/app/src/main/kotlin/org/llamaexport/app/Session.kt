package org.llamaexport.app

import android.os.SystemClock
import java.util.concurrent.CopyOnWriteArrayList
import org.llamaexport.core.AppError
import org.llamaexport.core.Conversation
import org.llamaexport.core.ConversationStore
import org.llamaexport.core.Message
import org.llamaexport.core.Overflow
import org.llamaexport.core.Role
import org.llamaexport.core.Sampling
import org.llamaexport.core.SavedTurn
import org.llamaexport.core.WriteSettings
import org.llamaexport.core.isBlank

private const val SAVE_EVERY_MS = 2_000L
private const val TITLE_CHARS = 48

/**
 * An answer that is being written.
 *
 * @property index place of its question among the turns
 * @property question what was asked
 * @property answer what is written of it
 * @property readTokens number of tokens of a long prompt that are read, of [totalTokens]; 0: no word yet
 */
data class Pending(
    val index: Int,
    val question: String,
    val answer: String = "",
    val readTokens: Int = 0,
    val totalTokens: Int = 0,
)

/** A question that does not fit into the context. */
data class Full(val index: Int, val question: String, val overflow: Overflow)

/**
 * The conversation that is open: what was said, what is being said, and what went wrong.
 *
 * It outlives the screens, and all of it is called on the main thread. What must survive the process
 * is saved as it changes, on the files' thread.
 */
class Session(
    private val store: ConversationStore,
    private val settings: AppSettings,
    private val host: ModelHost,
    private val answering: Answering,
    private val work: Background,
) {
    private val listeners = CopyOnWriteArrayList<() -> Unit>()
    private var savedMs = 0L

    /** Called when an answer begins. */
    var onBegin: () -> Unit = {}

    /** The conversation as it is, without what is pending. */
    var conversation: Conversation = fresh()
        private set

    /** The answer that is being written; null: none. */
    var pending: Pending? = null
        private set

    /** What went wrong last; null: nothing, or it was read. */
    var problem: AppError? = null
        private set

    /** The question that does not fit; null: none. */
    var full: Full? = null
        private set

    /** Number of drafts that the app itself made, such as after a failure: a screen then shows them. */
    var draftCount: Int = 0
        private set

    fun addListener(listener: () -> Unit) {
        listeners += listener
    }

    fun removeListener(listener: () -> Unit) {
        listeners -= listener
    }

    /** Send a message; false: it is blank, or something is being written, or no model is ready. */
    fun send(text: String): Boolean = ask(conversation.turns.size, text)

    /** Answer the last question anew. */
    fun regenerate(): Boolean {
        val index = conversation.turns.size - 2
        return index >= 0 && ask(index, conversation.turns[index].message.text)
    }

    /** Replace a message of the user and answer it; what follows is forgotten when the answer begins. */
    fun edit(index: Int, text: String): Boolean = index in conversation.turns.indices && ask(index, text)

    /** End the answer as soon as it can be done; what is written stays. */
    fun stop() = host.stop()

    /** Keep what is typed. */
    fun draft(text: String) {
        if (text != conversation.draft) conversation = conversation.copy(draft = text)
    }

    /** Change the system message and how tokens are drawn. */
    fun configure(system: String, sampling: Sampling) {
        conversation = conversation.copy(system = system, sampling = sampling)
        save()
        tell()
    }

    /** Begin another conversation; false: an answer is being written. */
    fun begin(): Boolean {
        if (pending != null) return false
        save()
        show(fresh())
        return true
    }

    /** Open a conversation that is kept, by its id. */
    fun open(id: String) {
        if (pending != null) return
        save()
        work.run({ store.load(id) }) { outcome ->
            val found = outcome.value
            // What was asked meanwhile goes on where it was asked.
            if (found == null) fail(outcome.error) else if (pending == null) show(mended(found))
        }
    }

    /** Hear that a conversation was renamed or deleted. */
    fun changedInStore(id: String, title: String?) {
        if (id != conversation.id) return
        if (title != null) conversation = conversation.copy(title = title) else show(fresh())
        tell()
    }

    /** Drop the turns that the context has no room for, and ask what did not fit. */
    fun dropOldest() {
        val question = full ?: return
        val old = conversation
        val dropped = minOf(question.overflow.droppedTurns, question.index)
        conversation = old.copy(turns = old.turns.drop(dropped))
        if (ask(question.index - dropped, question.question)) return
        conversation = old
        shorten()
    }

    /** Ask what did not fit in a new conversation; the old one is kept. */
    fun beginAnew() {
        val question = full ?: return
        draft("")
        save()
        val old = conversation
        show(fresh().copy(system = old.system, sampling = old.sampling))
        if (ask(0, question.question)) return
        restoreDraft(question.question)
        tell()
    }

    /** Let the user shorten what did not fit; it stands in the draft. */
    fun shorten() {
        val question = full ?: return
        full = null
        restoreDraft(question.question)
        tell()
    }

    /** Hear that the problem was read. */
    fun dismiss() {
        problem = null
        tell()
    }

    /** Show what went wrong elsewhere. */
    fun fail(error: AppError?) {
        problem = error
        tell()
    }

    /** Let the screens look again. */
    fun refresh() = tell()

    /** Keep it on the storage. */
    fun save() {
        val kept = conversation.copy(turns = keptTurns(), changedMs = System.currentTimeMillis())
        if (kept.turns.isEmpty() && isBlank(kept.draft)) return forget(kept.id)
        savedMs = SystemClock.uptimeMillis()
        settings.conversation = kept.id
        work.run({ store.save(kept) }) { outcome -> if (outcome.error != null) fail(outcome.error) }
    }

    /** What was typed was taken back, and nothing is left of the conversation. */
    private fun forget(id: String) {
        if (settings.conversation != id) return
        settings.conversation = ""
        work.run({ store.delete(id) })
    }

    private fun ask(index: Int, text: String): Boolean {
        val model = host.state.loaded
        if (pending != null || model == null || isBlank(text)) return false
        if (conversation.turns.isEmpty()) adopt(model, text)
        val question = Question(
            conversation = conversation.id,
            system = conversation.system,
            turns = conversation.turns.map { it.message },
            index = index,
            text = text,
            settings = WriteSettings(conversation.sampling, settings.maxTokens),
        )
        pending = Pending(index, text)
        if (!answering.ask(question, Listener())) {
            pending = null
            return false
        }
        problem = null
        full = null
        conversation = conversation.copy(draft = "", model = model.name)
        save()
        onBegin()
        tell()
        return true
    }

    /** A conversation gets its name from its first message, and the model's own settings. */
    private fun adopt(model: LoadedModel, text: String) {
        val line = text.trim().lineSequence().first()
        val title = if (line.length > TITLE_CHARS) line.take(TITLE_CHARS).trim() + "…" else line
        val isNew = conversation.model.isEmpty() && settings.sampling == null
        val asksModel = isNew && conversation.sampling == Sampling()
        val sampling = if (asksModel) model.sampling else conversation.sampling
        conversation = conversation.copy(title = title, sampling = sampling)
    }

    private inner class Listener : AnswerListener {
        override fun onReading(done: Int, total: Int) {
            pending = pending?.copy(readTokens = done, totalTokens = total)
            tell()
        }

        override fun onText(text: String) {
            pending = pending?.copy(answer = text)
            if (SystemClock.uptimeMillis() - savedMs >= SAVE_EVERY_MS) save()
            tell()
        }

        override fun onEnd(end: AnswerEnd) {
            val asked = pending ?: return
            pending = null
            when (end) {
                is AnswerEnd.Written -> take(asked, SavedTurn(answer(end.text), end.isWhole, end.figures))
                is AnswerEnd.Full -> {
                    full = Full(asked.index, asked.question, end.overflow)
                    val draft = conversation.draft.ifEmpty { asked.question }
                    conversation = conversation.copy(draft = draft)
                }
                is AnswerEnd.Failed -> {
                    problem = end.error
                    take(asked, SavedTurn(answer(end.text), isWhole = false))
                }
            }
            save()
            tell()
        }
    }

    /** Make question and answer turns; an answer without a word gives the question back. */
    private fun take(asked: Pending, answer: SavedTurn) {
        if (answer.message.text.isEmpty() && !answer.isWhole) {
            // A message that is there unchanged need not be typed again.
            val isThere = conversation.turns.getOrNull(asked.index)?.message?.text == asked.question
            if (!isThere) restoreDraft(asked.question)
            return
        }
        val question = SavedTurn(Message(Role.USER, asked.question))
        conversation = conversation.copy(turns = conversation.turns.take(asked.index) + question + answer)
    }

    private fun restoreDraft(text: String) {
        if (isBlank(conversation.draft)) conversation = conversation.copy(draft = text)
        draftCount += 1
    }

    private fun keptTurns(): List<SavedTurn> {
        val asked = pending ?: return conversation.turns
        return conversation.turns.take(asked.index) +
            SavedTurn(Message(Role.USER, asked.question)) + SavedTurn(answer(asked.answer), isWhole = false)
    }

    /** The process was killed before the first word: the question is typed, and not asked. */
    private fun mended(found: Conversation): Conversation {
        val last = found.turns.lastOrNull() ?: return found
        if (last.message.text.isNotEmpty() || last.isWhole) return found
        val question = found.turns[found.turns.size - 2].message.text
        return found.copy(turns = found.turns.dropLast(2), draft = found.draft.ifEmpty { question })
    }

    private fun show(next: Conversation) {
        conversation = next
        settings.conversation = if (next.turns.isEmpty() && next.draft.isEmpty()) "" else next.id
        problem = null
        full = null
        draftCount += 1
        tell()
    }

    private fun fresh() = Conversation(
        id = store.newId(),
        title = "",
        model = "",
        changedMs = System.currentTimeMillis(),
        system = settings.system,
        sampling = settings.sampling ?: Sampling(),
    )

    private fun answer(text: String) = Message(Role.ASSISTANT, text)

    private fun tell() = listeners.forEach { it() }
}
