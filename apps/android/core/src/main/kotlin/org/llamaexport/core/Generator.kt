package org.llamaexport.core

/**
 * What is written, and for how long.
 *
 * @property sampling how tokens are drawn
 * @property maxTokens largest number of new tokens; by default an answer's
 * @property stopTexts texts before the first of which the new text ends
 * @throws BadInput `maxTokens` is less than 1, or a stop text is empty
 */
data class WriteSettings(
    val sampling: Sampling = Sampling(),
    val maxTokens: Int = 512,
    val stopTexts: List<String> = emptyList(),
) {
    init {
        if (maxTokens < 1) {
            val message = "max_tokens: expected at least 1; found $maxTokens"
            throw BadInput(message, "Allow some tokens.", kind = ErrorKind.SETTING)
        }
        StopTexts(stopTexts)
    }
}

/**
 * A text that was written.
 *
 * @property text the new text, without the prompt
 * @property ids the new tokens, without the stop token
 * @property stats figures of the generation, and why it ended
 */
class Completion(val text: String, val ids: IntArray, val stats: GenerationStats)

/**
 * Writes texts with a model: one at a time, each given whole.
 *
 * What the cache already holds of a text is not read again. It belongs to the model's thread.
 *
 * @property cache the model's cache
 * @property tokenizer the model's tokenizer
 * @param stopIds ids that end a text
 * @param headTokens ids of the tokens that the model's logits stand for, where its head was pruned;
 *     empty: each logit stands for its own index
 * @param clock nanoseconds, for differences only
 */
class Generator(
    val cache: KeptCache,
    val tokenizer: Tokenizer,
    private val stopIds: Set<Int>,
    headTokens: IntArray = intArrayOf(),
    private val clock: () -> Long = System::nanoTime,
) {
    private val drawing = Drawing(minOf(tokenizer.vocabSize, cache.vocabSize), headTokens)
    private var current: Generation? = null

    /**
     * Begin to continue some tokens; any text that was not finished ends here, whatever follows.
     *
     * @param prompt token ids `[n]` of the whole text so far
     * @param settings by default a continuation of at most 256 tokens
     * @throws PromptError the prompt is empty, or longer than the context
     */
    fun begin(prompt: IntArray, settings: WriteSettings = COMPLETION): TextRun {
        end()
        return begin(prompt, settings, continues = false)
    }

    private fun begin(prompt: IntArray, settings: WriteSettings, continues: Boolean): TextRun {
        if (prompt.isEmpty()) throw empty()
        if (prompt.size > cache.maxContext) {
            throw PromptError(
                "the prompt is ${prompt.size} tokens long, and the context has room for ${cache.maxContext}",
                "Shorten it, or choose a larger context.",
                kind = ErrorKind.CONTEXT_FULL,
            )
        }
        cache.keepPrefixOf(prompt)
        val generation = Generation(
            cache, prompt, settings.sampling, stopIds, settings.maxTokens, drawing, clock,
        )
        current = generation
        return TextRun(generation, tokenizer.streamDecoder(continues), StopTexts(settings.stopTexts))
    }

    /**
     * Begin to continue a text, which gets the tokenizer's prefix in front.
     *
     * @param settings as the other form's
     * @throws PromptError as the other form; or the text holds half of a surrogate pair
     */
    fun begin(text: String, settings: WriteSettings = COMPLETION): TextRun {
        end()
        if (text.isEmpty()) throw empty()
        return begin(tokenizer.prefixIds + tokenizer.encode(text), settings, continues = true)
    }

    /** End a text that is not finished: its next token would go to the wrong place. */
    fun end() {
        current?.close()
        current = null
    }

    private fun empty() = PromptError("the prompt is empty", "Give a text of at least one character.")

    private companion object {
        val COMPLETION = WriteSettings(maxTokens = 256)
    }
}

/** Pieces of new text as they are written: whole characters only, and nothing of a stop text. */
class TextRun internal constructor(
    private val generation: Generation,
    private val decoder: StreamDecoder,
    private val stopTexts: StopTexts,
) {
    private val text = StringBuilder()
    private val ids = IntList()
    private var hasEnded = false

    /** The text so far. */
    val completion: Completion
        get() {
            val stats = generation.stats
            val reason = if (stopTexts.isFound) StopReason.STOP_TEXT else stats.stopReason
            return Completion(text.toString(), ids.toArray(), stats.copy(stopReason = reason))
        }

    /**
     * Write until there is text to show.
     *
     * @param stop wish to stop, looked at before each call of the model
     * @param onProgress as [KeptCache.read] calls it, while the prompt is read
     * @return a piece that is never empty; null: the text has ended
     * @throws EngineError the runtime failed; what was written until then stays in [completion]
     */
    fun next(stop: Stop, onProgress: (Int, Int) -> Unit = { _, _ -> }): String? {
        while (!hasEnded) {
            val id = generation.next(stop, onProgress)
            val piece = if (id == null) ending() else taken(id)
            if (piece.isNotEmpty()) {
                text.append(piece)
                return piece
            }
        }
        return null
    }

    /** Write the rest, piece by piece, and return the whole. */
    fun finish(stop: Stop = Stop(), onPiece: (String) -> Unit = {}): Completion {
        while (true) onPiece(next(stop) ?: return completion)
    }

    private fun taken(id: Int): String {
        ids.add(id)
        val piece = stopTexts.release(decoder.push(id))
        hasEnded = stopTexts.isFound
        return piece
    }

    private fun ending(): String {
        hasEnded = true
        // What was stopped breaks off here: half a character, or half a stop text, is no text.
        if (generation.stats.stopReason == StopReason.INTERRUPTED) return ""
        val piece = stopTexts.release(decoder.flush())
        return if (stopTexts.isFound) piece else piece + stopTexts.rest()
    }
}
