package org.llamaexport.core

import java.time.LocalDateTime

/** Who says something in a dialog, with its name in a manifest and in a chat template. */
enum class Role(val key: String) { SYSTEM("system"), USER("user"), ASSISTANT("assistant") }

/** What was said in a dialog. */
data class Message(val role: Role, val text: String)

/** A part of a dialog that the model's form prescribes: a token, a text, or the time. */
sealed interface Piece

/** A token, such as the one that ends a turn. */
data class TokenPiece(val id: Int) : Piece

/** Text, which is encoded together with its neighbours. */
data class TextPiece(val text: String) : Piece

/** The local time at the moment of asking, in strftime's words. */
data class DatePiece(val format: String) : Piece

/** Where a system message stands. */
sealed interface SystemPlace

/** What is written around a message of one role. */
data class Turn(val prefix: List<Piece>, val suffix: List<Piece>) : SystemPlace

/**
 * A system message without a turn: it stands before what one message of the user says.
 *
 * @property isInLast whether that is the last message of the user, and not the first
 * @property before text before the system message
 * @property after text between it and what the user says
 */
data class InsideUser(val isInLast: Boolean, val before: String, val after: String) : SystemPlace

/**
 * One model's way to write dialogs, as the manifest's `chat` has it.
 *
 * The first message may be a system message, which is not blank; then user and assistant take
 * turns.
 *
 * @property begin beginning of every dialog
 * @property noSystem what follows it where there is no turn of the system
 * @property system what is around a system message, or where else it stands; null: there can be none
 * @property user what is around a user's message
 * @property assistant what is around an answer
 * @property answer what asks for an answer, at the end
 * @property trim roles whose messages lose the white space around them, as Python's `str.strip` takes it
 * @property thoughtsEnd text up to whose last place an answer is left out; null: all of it is written
 */
data class Turns(
    val begin: List<Piece>,
    val noSystem: List<Piece>,
    val system: SystemPlace?,
    val user: Turn,
    val assistant: Turn,
    val answer: List<Piece>,
    val trim: Set<Role>,
    val thoughtsEnd: String? = null,
) {
    /** Return the messages that have turns, each with what is written of it. */
    internal fun told(messages: List<Message>): List<Pair<Turn, String>> {
        val first = messages.first()
        val inside = system as? InsideUser
        val others = if (first.role == Role.SYSTEM && inside != null) messages.drop(1) else messages
        val told = if (others.size < messages.size) written(first) else null
        val users = others.indices.filter { others[it].role == Role.USER }
        val place = if (inside?.isInLast == true) users.lastOrNull() else users.firstOrNull()
        return others.mapIndexed { at, message ->
            val holds = inside != null && told != null && at == place
            val text = if (holds) inside.before + told + inside.after + message.text else message.text
            turnOf(message.role) to written(Message(message.role, text))
        }
    }

    private fun turnOf(role: Role): Turn = when (role) {
        Role.SYSTEM -> system as? Turn ?: throw PromptError(
            "this model's dialogs have no system message",
            "Say it in your first message instead.",
        )
        Role.USER -> user
        Role.ASSISTANT -> assistant
    }

    /** Return what is written of a message: without thoughts, and without white space around it. */
    private fun written(message: Message): String {
        val isAnswer = message.role == Role.ASSISTANT && thoughtsEnd != null
        val text = if (isAnswer) message.text.substringAfterLast(thoughtsEnd) else message.text
        return if (message.role in trim) stripped(text) else text
    }
}

/**
 * How dialogs with a model are written: its turns, or why there are none.
 *
 * @property turns the model's turns; null: it is no model to chat with, or its template cannot be
 *     written down
 * @property reason why there are no turns; null where there are
 */
class ChatFormat(val turns: Turns?, val reason: String?) {
    /** Whether a dialog may have a system message. */
    val takesSystem: Boolean get() = turns?.system != null

    /**
     * Encode a dialog; special tokens that somebody typed stay text.
     *
     * @param messages what was said, oldest first
     * @param asks whether an answer is asked for at the end
     * @param now local time to write
     * @return token ids `[n]`, equal to those of the model's chat template
     * @throws PromptError the model has no turns, or none for a system message; the messages are not of
     *     this order; or a text holds half of a surrogate pair
     */
    fun encode(
        messages: List<Message>,
        tokenizer: Tokenizer,
        asks: Boolean = true,
        now: LocalDateTime = LocalDateTime.now(),
    ): IntArray {
        val ids = IntList()
        for (part in write(messages, asks, now)) {
            when (part) {
                is TokenPiece -> ids.add(part.id)
                is TextPiece -> ids.addAll(tokenizer.encode(part.text, continues = ids.size > 0))
                is DatePiece -> error("a date was not written")
            }
        }
        return ids.toArray()
    }

    /**
     * Write a dialog as tokens and texts, with no text beside another one.
     *
     * @throws PromptError as [encode]
     */
    fun write(messages: List<Message>, asks: Boolean, now: LocalDateTime): List<Piece> {
        val form = turns ?: throw PromptError(
            "dialogs with this model cannot be written: ${reason ?: "its bundle does not say how"}",
            "Give it a text to go on with instead.",
        )
        requireOrder(messages, asks)
        val written = JoinedPieces(now)
        val told = form.told(messages)
        written.add(form.begin)
        val opensWithSystem = messages[0].role == Role.SYSTEM && form.system is Turn
        if (!opensWithSystem) written.add(form.noSystem)
        for ((turn, text) in told) {
            written.add(turn.prefix)
            written.add(TextPiece(text))
            written.add(turn.suffix)
        }
        if (asks) written.add(form.answer)
        return written.parts()
    }

    private fun requireOrder(messages: List<Message>, asks: Boolean) {
        val first = if (messages.firstOrNull()?.role == Role.SYSTEM) 1 else 0
        val inOrder = messages.drop(first).withIndex().all { (place, message) ->
            message.role == if (place % 2 == 0) Role.USER else Role.ASSISTANT
        }
        if (!inOrder || messages.size <= first || (asks && messages.last().role != Role.USER)) {
            val place = if (asks) "last" else "first"
            val found = messages.joinToString(", ") { it.role.key }.ifEmpty { "no message" }.take(SHOWN_CHARS)
            throw PromptError(
                "the dialog: expected user and assistant in turn, the user $place; found $found",
                "Begin with what the user says.",
            )
        }
    }

    companion object {
        private const val MOST_PIECES = 256
        private const val THOUGHTS_END = "thoughts_end"
        private const val SHOWN_CHARS = 80
        private const val HINT = "Export the model again, or update the app."

        /** The form of a bundle whose exporter was too old to say. */
        val UNKNOWN: ChatFormat = ChatFormat(null, "the bundle is older than the key chat of its manifest")

        /**
         * Read the key `chat` of a manifest.
         *
         * @param vocabSize number of token ids
         * @throws BadInput a key is missing or of another form, or a token is outside the vocabulary
         */
        fun of(chat: JsonFields, vocabSize: Int): ChatFormat {
            if ("turns" !in chat) return ChatFormat(null, chat.text("reason"))
            val turns = chat.fields("turns")
            turns.required(Role.SYSTEM.key)
            turns.required(THOUGHTS_END)
            return ChatFormat(
                Turns(
                    begin = pieces(turns, "begin", vocabSize),
                    noSystem = pieces(turns, "no_system", vocabSize),
                    system = if (Role.SYSTEM.key in turns) systemPlace(turns, vocabSize) else null,
                    user = turn(turns.fields(Role.USER.key), vocabSize),
                    assistant = turn(turns.fields(Role.ASSISTANT.key), vocabSize),
                    answer = pieces(turns, "answer", vocabSize),
                    trim = trimmedRoles(turns),
                    thoughtsEnd = thoughtsEnd(turns),
                ),
                null,
            )
        }

        private fun turn(owner: JsonFields, vocabSize: Int) =
            Turn(pieces(owner, "prefix", vocabSize), pieces(owner, "suffix", vocabSize))

        private fun systemPlace(turns: JsonFields, vocabSize: Int): SystemPlace {
            val owner = turns.fields(Role.SYSTEM.key)
            if ("user" !in owner) return turn(owner, vocabSize)
            val isInLast = when (val user = owner.text("user")) {
                "first" -> false
                "last" -> true
                else -> throw wrong(owner, "user", "first or last", user)
            }
            return InsideUser(isInLast, before = text(owner, "before"), after = text(owner, "after"))
        }

        private fun trimmedRoles(turns: JsonFields): Set<Role> = turns.list("trim").map { name ->
            Role.entries.find { JsonText(it.key) == name }
                ?: throw wrong(turns, "trim", "names of roles", name.write())
        }.toSet()

        private fun thoughtsEnd(turns: JsonFields): String? {
            if (THOUGHTS_END !in turns) return null
            return text(turns, THOUGHTS_END).ifEmpty { throw wrong(turns, THOUGHTS_END, "a text", "none") }
        }

        private fun text(owner: JsonFields, key: String): String = owner.text(key).also {
            if (hasHalfPair(it)) throw wrong(owner, key, "a text that can be encoded", JsonText(it).write())
        }

        private fun pieces(owner: JsonFields, key: String, vocabSize: Int): List<Piece> {
            val found = owner.list(key)
            if (found.size > MOST_PIECES) {
                throw wrong(owner, key, "at most $MOST_PIECES pieces", "${found.size}")
            }
            return found.map { piece(it, owner, key, vocabSize) }
        }

        private fun piece(value: Json, owner: JsonFields, key: String, vocabSize: Int): Piece = when (value) {
            is JsonText -> {
                if (value.value.isEmpty() || hasHalfPair(value.value)) {
                    throw wrong(owner, key, "texts that can be encoded", value.write())
                }
                TextPiece(value.value)
            }
            is JsonNumber -> TokenPiece(
                value.text.toIntOrNull()?.takeIf { it in 0 until vocabSize }
                    ?: throw wrong(owner, key, "a token of the vocabulary of $vocabSize", value.text),
            )
            is JsonObject -> {
                val format = (value["strftime"] as? JsonText)?.value
                val isKnown = format != null && !hasHalfPair(format) && isTimeFormat(format)
                if (!isKnown || value.entries.size != 1) {
                    throw wrong(owner, key, "a time in words of strftime that this app knows", value.write())
                }
                DatePiece(format)
            }
            else -> throw wrong(owner, key, "token ids, texts and times", value.kind)
        }

        private fun wrong(owner: JsonFields, key: String, expected: String, found: String) =
            BadInput("${owner.at(key)}: expected $expected, found ${found.take(SHOWN_CHARS)}", HINT)
    }
}

/** Collects pieces: times are written, and neighbouring texts become one. */
private class JoinedPieces(private val now: LocalDateTime) {
    private val parts = ArrayList<Piece>()
    private val text = StringBuilder()

    fun add(pieces: List<Piece>) = pieces.forEach(::add)

    fun add(piece: Piece) {
        when (piece) {
            is TextPiece -> text.append(piece.text)
            is DatePiece -> text.append(formatTime(piece.format, now))
            is TokenPiece -> {
                endText()
                parts.add(piece)
            }
        }
    }

    fun parts(): List<Piece> {
        endText()
        return parts
    }

    private fun endText() {
        if (text.isNotEmpty()) parts.add(TextPiece(text.toString()))
        text.setLength(0)
    }
}
