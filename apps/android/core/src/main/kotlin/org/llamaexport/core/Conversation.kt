package org.llamaexport.core

import java.security.MessageDigest

private const val VERSION = 1
private const val SHOWN_CHARS = 40
private const val MOST_TURNS = 100_000

/**
 * The figures under an answer.
 *
 * @property newTokens number of tokens of the answer
 * @property tokensPerS speed of the tokens after the first
 * @property timeToFirstTokenS seconds from sending to the first token
 * @property contextTokens positions of the context that are taken after it
 * @property maxContext positions that there are; null: not known, as below
 * @property memoryBytes memory that the app took at its end
 * @property thermal how hot the phone was then, in the system's word
 */
data class AnswerFigures(
    val newTokens: Int,
    val tokensPerS: Double,
    val timeToFirstTokenS: Double,
    val contextTokens: Int,
    val maxContext: Int? = null,
    val memoryBytes: Long? = null,
    val thermal: String? = null,
)

/**
 * A message as it is kept.
 *
 * @property isWhole false for an answer that was cut short, by the user or by the system
 * @property figures figures of an answer; null: none, or a message of the user
 */
data class SavedTurn(
    val message: Message,
    val isWhole: Boolean = true,
    val figures: AnswerFigures? = null,
)

/**
 * A conversation as it is kept: everything that is needed to go on with it after a restart.
 *
 * @property id name of its file, without an ending
 * @property title what the list shows
 * @property model name of the bundle's folder
 * @property changedMs time of the last change, in milliseconds since 1970
 * @property system system message; blank: none
 * @property draft what the user had typed and not sent
 */
data class Conversation(
    val id: String,
    val title: String,
    val model: String,
    val changedMs: Long,
    val system: String = "",
    val sampling: Sampling = Sampling(),
    val turns: List<SavedTurn> = emptyList(),
    val draft: String = "",
) {
    /** Return it as the text of a file, with a checksum in it. */
    fun write(): String {
        val content = toJson()
        return JsonObject(
            "format_version" to JsonNumber(VERSION),
            "sha256" to JsonText(checksum(content)),
            "conversation" to content,
        ).write()
    }

    /** Return it as text that a person reads. */
    fun toText(): String = buildString {
        append(title).append("\n")
        if (system.isNotEmpty()) append("\n[system]\n").append(system).append("\n")
        for (turn in turns) {
            append("\n[").append(turn.message.role.key).append("]\n").append(turn.message.text)
            if (!turn.isWhole) append(" [...]")
            append("\n")
        }
    }

    private fun toJson() = JsonObject(
        "id" to JsonText(id),
        "title" to JsonText(title),
        "model" to JsonText(model),
        "changed_ms" to JsonNumber(changedMs),
        "system" to JsonText(system),
        "sampling" to sampling.toJson(),
        "turns" to JsonArray(turns.map { it.toJson() }),
        "draft" to JsonText(draft),
    )

    companion object {
        /**
         * Read the text of a file.
         *
         * @param where name of the file, for messages
         * @throws BadInput it is damaged at any byte, or of a newer version of the app
         */
        fun parse(text: String, where: String): Conversation {
            val top = parseJson(text, where).fields(where)
            val version = top.int("format_version")
            if (version != VERSION) {
                val message = "$where has format_version $version; this app reads $VERSION"
                throw BadInput(message, "Update the app.")
            }
            val fields = top.fields("conversation")
            if (checksum(fields.json) != top.text("sha256")) {
                throw BadInput("$where was changed outside of the app, or is damaged", "It is kept as it is.")
            }
            return Conversation(
                id = fields.text("id"),
                title = fields.text("title"),
                model = fields.text("model"),
                changedMs = fields.long("changed_ms"),
                system = fields.text("system"),
                sampling = samplingOf(fields.fields("sampling")),
                turns = turnsOf(fields),
                draft = fields.text("draft"),
            )
        }

        private fun checksum(content: Json): String =
            MessageDigest.getInstance("SHA-256").digest(content.write().toByteArray()).toHex()

        private fun turnsOf(fields: JsonFields): List<SavedTurn> {
            val turns = fields.list("turns")
            if (turns.size > MOST_TURNS) throw BadInput("${fields.where} has more than $MOST_TURNS turns", "")
            return turns.mapIndexed { index, turn -> turnOf(turn.fields("${fields.where}: turn $index")) }
        }
    }
}

private fun Sampling.toJson() = JsonObject(
    "temperature" to JsonNumber(temperature),
    "top_p" to JsonNumber(topP),
    "top_k" to JsonNumber(topK),
    "seed" to (seed?.let { JsonNumber(it) } ?: JsonNull),
    "min_p" to JsonNumber(minP),
    "repetition_penalty" to JsonNumber(repetitionPenalty),
)

private fun samplingOf(fields: JsonFields) = Sampling(
    temperature = fields.double("temperature"),
    topP = fields.double("top_p"),
    topK = fields.int("top_k"),
    seed = if ("seed" in fields) fields.long("seed") else null,
    minP = fields.double("min_p"),
    repetitionPenalty = fields.double("repetition_penalty"),
)

private fun SavedTurn.toJson() = JsonObject(
    "role" to JsonText(message.role.key),
    "text" to JsonText(message.text),
    "is_whole" to JsonBool(isWhole),
    "figures" to (figures?.toJson() ?: JsonNull),
)

private fun AnswerFigures.toJson() = JsonObject(
    "new_tokens" to JsonNumber(newTokens),
    "tokens_per_s" to JsonNumber(tokensPerS),
    "time_to_first_token_s" to JsonNumber(timeToFirstTokenS),
    "context_tokens" to JsonNumber(contextTokens),
    "max_context" to (maxContext?.let { JsonNumber(it) } ?: JsonNull),
    "memory_bytes" to (memoryBytes?.let { JsonNumber(it) } ?: JsonNull),
    "thermal" to (thermal?.let { JsonText(it) } ?: JsonNull),
)

private fun turnOf(fields: JsonFields): SavedTurn {
    val key = fields.text("role")
    val role = Role.entries.firstOrNull { it.key == key }
        ?: throw BadInput("${fields.at("role")}: expected a role, found ${key.take(SHOWN_CHARS)}", "")
    val figures = if ("figures" in fields) fields.fields("figures") else null
    return SavedTurn(Message(role, fields.text("text")), fields.bool("is_whole"), figures?.let(::figuresOf))
}

private fun figuresOf(fields: JsonFields) = AnswerFigures(
    newTokens = fields.int("new_tokens"),
    tokensPerS = fields.double("tokens_per_s"),
    timeToFirstTokenS = fields.double("time_to_first_token_s"),
    contextTokens = fields.int("context_tokens"),
    maxContext = if ("max_context" in fields) fields.int("max_context") else null,
    memoryBytes = if ("memory_bytes" in fields) fields.long("memory_bytes") else null,
    thermal = if ("thermal" in fields) fields.text("thermal") else null,
)
