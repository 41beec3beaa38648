package org.llamaexport.app

import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import org.llamaexport.core.AnswerFigures
import org.llamaexport.core.AppError
import org.llamaexport.core.Chat
import org.llamaexport.core.Completion
import org.llamaexport.core.Message
import org.llamaexport.core.Overflow
import org.llamaexport.core.Stop
import org.llamaexport.core.StopReason
import org.llamaexport.core.WriteSettings
import org.llamaexport.core.PromptError

/** Least time between two looks at the text, in milliseconds: a screen shows no more. */
const val PIECE_MS: Long = 33

/**
 * A question to the model.
 *
 * @property conversation id of the conversation
 * @property turns what was said, half an answer included
 * @property index place of the question among the turns; what follows is forgotten
 */
data class Question(
    val conversation: String,
    val system: String,
    val turns: List<Message>,
    val index: Int,
    val text: String,
    val settings: WriteSettings,
)

/** How an answer ended. */
sealed interface AnswerEnd {
    /** It is written, wholly or until it was stopped. */
    data class Written(val text: String, val isWhole: Boolean, val figures: AnswerFigures?) : AnswerEnd

    /** The question does not fit into the context. */
    data class Full(val overflow: Overflow) : AnswerEnd

    /** Something went wrong after [text]. */
    data class Failed(val error: AppError, val text: String) : AnswerEnd
}

/** Hears of an answer, on the main thread. */
interface AnswerListener {
    /** So many tokens of a long prompt are read. */
    fun onReading(done: Int, total: Int)

    /** The answer so far. */
    fun onText(text: String)

    fun onEnd(end: AnswerEnd)
}

/** Asks the model of a host, and hands its answer to the main thread at a pace that it can show. */
class Answering(private val host: ModelHost, private val phone: Phone) {
    private val main = Handler(Looper.getMainLooper())

    // The model's thread alone uses both.
    private var chat: Chat? = null
    private var chatOf: Pair<OpenModel, String>? = null

    /** Ask; false: no model is ready. */
    fun ask(question: Question, listener: AnswerListener): Boolean {
        val pieces = Pieces(main, listener)
        return host.work("answer", { model, stop -> answer(model, question, stop, pieces) }) { outcome ->
            pieces.end()
            val error = outcome.error
            val end = outcome.value
            listener.onEnd(if (error != null) AnswerEnd.Failed(error, pieces.text) else checkNotNull(end))
        }
    }

    private fun answer(model: OpenModel, question: Question, stop: Stop, pieces: Pieces): AnswerEnd {
        val completion = if (model.format.turns == null) {
            val run = model.generator.begin(question.text, question.settings)
            while (true) pieces.add(run.next(stop, pieces::reading) ?: break)
            run.completion
        } else {
            val chat = chatFor(model, question)
            chat.overflow(question.text, question.settings, question.index)?.let { return AnswerEnd.Full(it) }
            written(chat, question, stop, pieces)
        }
        val stats = completion.stats
        val figures = AnswerFigures(
            newTokens = stats.newTokens,
            tokensPerS = stats.decodeTokensPerS,
            timeToFirstTokenS = stats.timeToFirstTokenS,
            contextTokens = stats.contextTokens,
            maxContext = stats.maxContext,
            memoryBytes = phone.appMemoryBytes(),
            thermal = phone.thermal(),
        )
        val isWhole = stats.stopReason == StopReason.STOP_TOKEN || stats.stopReason == StopReason.STOP_TEXT
        return AnswerEnd.Written(completion.text, isWhole, figures.takeIf { stats.newTokens > 0 })
    }

    private fun written(chat: Chat, question: Question, stop: Stop, pieces: Pieces): Completion =
        if (question.index == chat.turns.size) {
            chat.send(question.text, question.settings, stop, pieces::reading, pieces::add)
        } else {
            chat.edit(question.index, question.text, question.settings, stop, pieces::reading, pieces::add)
        }

    /** The chat of the last question where it goes on, so that a seed goes on too. */
    private fun chatFor(model: OpenModel, question: Question): Chat {
        val key = model to question.conversation
        val last = chat
        // One that was meant for other models; the settings say that this one has no place for it.
        val system = if (model.format.takesSystem) question.system else ""
        if (last != null && chatOf == key && last.turns == question.turns && last.system == system) {
            return last
        }
        if (question.turns.size % 2 != 0) {
            throw PromptError("the conversation ends without an answer", "Send its last message again.")
        }
        return Chat(model.generator, model.format, system, question.turns).also {
            chat = it
            chatOf = key
        }
    }
}

/** Gathers pieces on the model's thread and shows the main thread all of them every [PIECE_MS]. */
internal class Pieces(private val main: Handler, private val listener: AnswerListener) {
    private val gathered = StringBuilder()
    private var isPosted = false
    private var hasEnded = false
    private var shownMs = 0L

    /** All of it so far. */
    val text: String get() = synchronized(gathered) { gathered.toString() }

    fun add(piece: String) {
        val waitMs = synchronized(gathered) {
            gathered.append(piece)
            if (isPosted) return
            isPosted = true
            (shownMs + PIECE_MS - SystemClock.uptimeMillis()).coerceIn(0, PIECE_MS)
        }
        main.postDelayed(::show, waitMs)
    }

    fun reading(done: Int, total: Int) {
        main.post { if (!hasEnded) listener.onReading(done, total) }
    }

    /** Show nothing more; on the main thread. */
    fun end() {
        hasEnded = true
    }

    private fun show() {
        val now = synchronized(gathered) {
            isPosted = false
            shownMs = SystemClock.uptimeMillis()
            gathered.toString()
        }
        if (!hasEnded) listener.onText(now)
    }
}
