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

/** What is written around a message of one role. */
data class Turn(val prefix: List<Piece>, val suffix: List<Piece>)

/**
 * One model's way to write dialogs, as the manifest's `chat` has it.
 *
 * The first message may be a system message, which is not blank; then user and assistant take
 * turns.
 *
 * @property begin beginning of every dialog
 * @property noSystem what follows it where there is no system message
 * @property around what is around a message, by its role
 * @property answer what asks for an answer, at the end
 * @property trim whether white space around a message is taken away, as Python's `str.strip` does
 */
data class Turns(
    val begin: List<Piece>,
    val noSystem: List<Piece>,
    val around: Map<Role, Turn>,
    val answer: List<Piece>,
    val trim: Boolean,
) {
    /** Return what stands around a message of a role. */
    fun around(role: Role): Turn = requireNotNull(around[role]) { "no turn of the ${role.key}" }
}

/**
 * How dialogs with a model are written: its turns, or why there are none.
 *
 * @property turns the model's turns; null: it is no model to chat with, or its template cannot be
 *     written down
 * @property reason why there are no turns; null where there are
 */
class ChatFormat(val turns: Turns?, val reason: String?) {
    /**
     * Encode a dialog; special tokens that somebody typed stay text.
     *
     * @param messages what was said, oldest first
     * @param asks whether an answer is asked for at the end
     * @param now local time to write
     * @return token ids `[n]`, equal to those of the model's chat template
     * @throws PromptError the model has no turns, they are not of this order, or a text holds half of
     *     a surrogate pair
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
                is TextPiece -> ids.addAll(tokenizer.encode(part.text))
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
        written.add(form.begin)
        if (messages[0].role != Role.SYSTEM) written.add(form.noSystem)
        for (message in messages) {
            val turn = form.around(message.role)
            written.add(turn.prefix)
            written.add(TextPiece(if (form.trim) stripped(message.text) else message.text))
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
            val roles = Role.entries.associateWith { role ->
                val owner = turns.fields(role.key)
                Turn(pieces(owner, "prefix", vocabSize), pieces(owner, "suffix", vocabSize))
            }
            return ChatFormat(
                Turns(
                    begin = pieces(turns, "begin", vocabSize),
                    noSystem = pieces(turns, "no_system", vocabSize),
                    around = roles,
                    answer = pieces(turns, "answer", vocabSize),
                    trim = turns.bool("trim"),
                ),
                null,
            )
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
