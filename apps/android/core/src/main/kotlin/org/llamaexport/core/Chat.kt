package org.llamaexport.core

import java.time.LocalDateTime

/**
 * Turns of a user and a model.
 *
 * The whole dialog is encoded anew every time, and the cache reads only what it lacks; so undoing,
 * answering again and editing need nothing of their own. It belongs to the model's thread.
 *
 * @param generator what writes the answers
 * @param format how the model's dialogs are written
 * @param system system message, which says how the model is to behave; blank for none
 * @param turns what was said before, user and assistant in turn; half an answer counts as one
 * @param now the local time, for forms that write it
 * @throws PromptError the model has no turns, those given are in another order, or a text holds half
 *     of a surrogate pair
 */
class Chat(
    private val generator: Generator,
    private val format: ChatFormat,
    system: String = "",
    turns: List<Message> = emptyList(),
    private val now: () -> LocalDateTime = LocalDateTime::now,
) {
    private val said = ArrayList(turns)

    // A seed goes on where it was.
    private var answers = turns.size / 2

    init {
        if (turns.size % 2 != 0) {
            throw PromptError("the conversation ends without an answer", "Send its last message again.")
        }
        if (turns.isEmpty()) length(listOf(Message(Role.USER, "Hello")), system) else length(turns, system)
    }

    /**
     * The system message; setting it keeps the turns, which are then read again.
     *
     * @throws PromptError on setting it, the text holds half of a surrogate pair
     */
    var system: String = system
        set(text) {
            generator.end()
            length(listOf(Message(Role.USER, "Hello")), text)
            field = text
        }

    /** What was said, oldest first, without the system message. */
    val turns: List<Message> get() = said.toList()

    /** Number of tokens of the conversation. */
    val length: Int get() = if (said.isEmpty()) 0 else length(said, system)

    /**
     * Number of its tokens that are in the cache, and need no reading.
     *
     * It is less than [length] even right after an answer, whose last token and end are read with the
     * next message.
     */
    val cached: Int
        get() {
            if (said.isEmpty()) return 0
            val ids = encode(said, system, asks = false)
            return generator.cache.sharedLength(ids)
        }

    /**
     * Send a message and return the whole answer.
     *
     * Both become turns in whatever way the answer ends; when not one token was written and it was
     * interrupted, neither does.
     *
     * @param onProgress as [KeptCache.read] calls it, while the dialog is read
     * @param onPiece called with each piece of the answer, which is never empty
     * @throws PromptError the text is blank, holds half of a surrogate pair, or does not fit into the
     *     context
     * @throws EngineError the runtime failed; half an answer is kept
     */
    fun send(
        text: String,
        settings: WriteSettings = WriteSettings(),
        stop: Stop = Stop(),
        onProgress: (Int, Int) -> Unit = { _, _ -> },
        onPiece: (String) -> Unit = {},
    ): Completion = answer(said.size, text, settings, stop, onProgress, onPiece)

    /**
     * Answer the last message again, with other random numbers; the old answer is replaced.
     *
     * @throws PromptError there is no answer yet
     * @throws EngineError as [send]
     */
    fun regenerate(
        settings: WriteSettings = WriteSettings(),
        stop: Stop = Stop(),
        onProgress: (Int, Int) -> Unit = { _, _ -> },
        onPiece: (String) -> Unit = {},
    ): Completion {
        requireAnswer()
        return answer(said.size - 2, said[said.size - 2].text, settings, stop, onProgress, onPiece)
    }

    /**
     * Replace a message of the user and answer it; what was said after it is forgotten.
     *
     * @param index place of the message in [turns]
     * @throws PromptError there is no such message, or as [send]
     * @throws EngineError as [send]
     */
    fun edit(
        index: Int,
        text: String,
        settings: WriteSettings = WriteSettings(),
        stop: Stop = Stop(),
        onProgress: (Int, Int) -> Unit = { _, _ -> },
        onPiece: (String) -> Unit = {},
    ): Completion {
        if (said.getOrNull(index)?.role != Role.USER) {
            throw PromptError(
                "there is no message of the user at place $index of ${said.size}",
                "Choose another one.",
            )
        }
        return answer(index, text, settings, stop, onProgress, onPiece)
    }

    /**
     * Take the last message and its answer back, and return the message.
     *
     * @throws PromptError there is no answer yet
     */
    fun undo(): String {
        requireAnswer()
        generator.end()
        val question = said[said.size - 2].text
        dropLast(said.size - 2)
        return question
    }

    /** Forget every turn; the system message stays. */
    fun reset() {
        generator.end()
        said.clear()
    }

    /**
     * Forget the oldest turns; the system message stays.
     *
     * @param count number of turns, even, so that the conversation still begins with the user
     */
    fun dropOldest(count: Int) {
        require(count in 0..said.size && count % 2 == 0) { "expected an even number of turns, found $count" }
        generator.end()
        said.subList(0, count).clear()
    }

    /**
     * Explain why a message does not fit, and what would make it fit; null when it fits.
     *
     * @param index place in [turns] where the message is put, even; by default behind all
     * @throws PromptError the text is blank, or holds half of a surrogate pair
     */
    fun overflow(text: String, settings: WriteSettings = WriteSettings(), index: Int = said.size): Overflow? {
        requireText(text)
        val earlier = said.subList(0, index)
        val question = Message(Role.USER, text)
        val length = DialogLength { dropped, hasSystem ->
            encode(earlier.drop(dropped) + question, if (hasSystem) system else "").size
        }
        return findOverflow(length, index, settings.maxTokens, generator.cache.maxContext)
    }

    private fun answer(
        index: Int,
        text: String,
        settings: WriteSettings,
        stop: Stop,
        onProgress: (Int, Int) -> Unit,
        onPiece: (String) -> Unit,
    ): Completion {
        generator.end()
        overflow(text, settings, index)?.let {
            throw PromptError(it.message, it.hint, kind = ErrorKind.CONTEXT_FULL)
        }
        val question = Message(Role.USER, text)
        val prompt = encode(said.subList(0, index) + question, system)
        val seed = settings.sampling.seed
        val sampling = if (seed == null) settings.sampling else settings.sampling.copy(seed = raised(seed))
        answers += 1
        val run = generator.begin(prompt, settings.copy(sampling = sampling))
        try {
            while (true) onPiece(run.next(stop, onProgress) ?: break)
        } finally {
            generator.end()
            remember(index, question, run.completion)
        }
        return run.completion
    }

    private fun remember(index: Int, question: Message, completion: Completion) {
        if (completion.ids.isEmpty() && completion.stats.stopReason == StopReason.INTERRUPTED) return
        dropLast(index)
        said += question
        said += Message(Role.ASSISTANT, completion.text)
    }

    private fun dropLast(from: Int) = said.subList(from, said.size).clear()

    /** The first answer uses the seed, the second the next higher one, and so on. */
    private fun raised(seed: Long): Long = (seed + answers) and Long.MAX_VALUE

    private fun requireAnswer() {
        if (said.isEmpty()) throw PromptError("there is no answer yet", "Say something first.")
    }

    private fun requireText(text: String) {
        if (isBlank(text)) throw PromptError("the message is empty", "Give a text of at least one character.")
    }

    private fun length(turns: List<Message>, system: String): Int =
        encode(turns, system, asks = turns.last().role == Role.USER).size

    private fun encode(turns: List<Message>, system: String, asks: Boolean = true): IntArray {
        val first = if (isBlank(system)) emptyList() else listOf(Message(Role.SYSTEM, system))
        return format.encode(first + turns, generator.tokenizer, asks, now())
    }
}
