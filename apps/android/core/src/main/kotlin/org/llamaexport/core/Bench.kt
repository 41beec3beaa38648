package org.llamaexport.core

/**
 * What is measured; the defaults are those of `llama-export bench`.
 *
 * @property promptLengths numbers of tokens of the prompts that an empty cache is filled with
 * @property contexts numbers of positions in the cache when decoding begins
 * @property decodeTokens number of tokens decoded for one sample
 * @property repeat number of samples of each figure that count; one more comes first
 */
data class BenchPlan(
    val promptLengths: List<Int>,
    val contexts: List<Int>,
    val decodeTokens: Int,
    val repeat: Int,
) {
    /** Number of samples, those that do not count too. */
    val samples: Int get() = (repeat + 1) * (promptLengths.size + contexts.size)

    companion object {
        /**
         * Plan what a context has room for.
         *
         * @param quick whether to measure one length with fewer samples
         * @throws BadInput the context is too short to measure anything
         */
        fun fitting(maxContext: Int, quick: Boolean = false): BenchPlan {
            val decodeTokens = if (quick) 8 else 16
            val room = maxContext - decodeTokens
            if (room < 1) {
                throw BadInput(
                    "the context: expected more than $decodeTokens positions to measure, found $maxContext",
                    "Choose a larger context.",
                )
            }
            val lengths = if (quick) listOf(128) else listOf(128, 512)
            val contexts = if (quick) listOf(128) else listOf(128, 1024)
            return BenchPlan(
                lengths.filter { it <= maxContext }.ifEmpty { listOf(maxContext) },
                contexts.filter { it <= room }.ifEmpty { listOf(room) },
                decodeTokens,
                if (quick) 2 else 5,
            )
        }
    }
}

/** The readings that a measurement takes; the phone gives them. */
interface BenchHost {
    /** Nanoseconds, for differences only. */
    fun clockNanos(): Long

    /** What this process holds in memory; null: not known. */
    fun residentBytes(): Long?

    /** The most that it ever held; null: not known. */
    fun peakResidentBytes(): Long?

    /** How hot the phone is, in the system's words; null: not known. */
    fun thermal(): String?
}

/** The samples of one figure, summarised. */
data class Spread(val median: Double, val least: Double, val most: Double) {
    /** Return plain data. */
    fun json(): JsonObject = JsonObject(
        "median" to JsonNumber(median),
        "least" to JsonNumber(least),
        "most" to JsonNumber(most),
    )

    companion object {
        /** Summarise samples; there is at least one. */
        fun of(samples: List<Double>): Spread {
            val sorted = samples.sorted()
            val upper = sorted[sorted.size / 2]
            val lower = sorted[(sorted.size - 1) / 2]
            return Spread((lower + upper) / 2, sorted.first(), sorted.last())
        }
    }
}

/** The figures of one length of prompt, `tokens` long. */
data class PrefillFigures(val tokens: Int, val firstTokenS: Spread, val tokensPerS: Spread)

/** The figures of decoding with `context` positions in the cache. */
data class DecodeFigures(val context: Int, val tokensPerS: Spread)

/**
 * All figures of one artifact on this phone.
 *
 * @property loadS seconds until the model was ready
 * @property residentBeforeBytes memory of the process before loading; null: not known, as below
 * @property residentBytes memory of the process after loading
 * @property peakResidentBytes largest memory of the process, over its life
 * @property firstCallTokens length of the very first prompt
 * @property firstCallS seconds that reading it took, more than later ones take
 * @property prefill figures by length of prompt
 * @property decode figures by context
 * @property thermalBefore how hot the phone was before the measurement
 * @property thermalAfter how hot it was at its end
 */
data class BenchResult(
    val loadS: Double,
    val residentBeforeBytes: Long?,
    val residentBytes: Long?,
    val peakResidentBytes: Long?,
    val firstCallTokens: Int,
    val firstCallS: Double,
    val prefill: List<PrefillFigures>,
    val decode: List<DecodeFigures>,
    val thermalBefore: String?,
    val thermalAfter: String?,
)

/**
 * Load a model and measure it.
 *
 * @param open what loads it; it is closed at the end
 * @param plan what to measure; it must fit the model
 * @param ordinaryTokens number of ids, the first ones, from which the prompts are drawn; they are
 *     always the same
 * @param headTokens ids of the tokens that the logits stand for, where the head was pruned; or empty
 * @param stop wish to stop, looked at before each call of the model
 * @param onProgress called with the number of samples done, and of all samples
 * @return the figures; null: it was stopped
 * @throws EngineError the runtime failed, or computes no numbers
 */
fun measureBench(
    open: () -> StepModel,
    plan: BenchPlan,
    host: BenchHost,
    ordinaryTokens: Int,
    headTokens: IntArray = intArrayOf(),
    stop: Stop = Stop(),
    onProgress: (Int, Int) -> Unit = { _, _ -> },
): BenchResult? {
    val residentBefore = host.residentBytes()
    val thermalBefore = host.thermal()
    val begun = host.clockNanos()
    return KeptCache(open()).use { cache ->
        val loadS = (host.clockNanos() - begun) / NANOS
        val resident = host.residentBytes()
        val samples = BenchSamples(plan, host, onProgress)
        try {
            val reader = BenchReader(cache, headTokens, ordinaryTokens, stop)
            val firstCallS = samples.firstTokenS(reader, plan.promptLengths[0])
            // No figure counts it: what computes no numbers has no speed.
            reader.requireNumbers()
            BenchResult(
                loadS = loadS,
                residentBeforeBytes = residentBefore,
                residentBytes = resident,
                firstCallTokens = plan.promptLengths[0],
                firstCallS = firstCallS,
                prefill = plan.promptLengths.map { samples.prefill(reader, it) },
                decode = plan.contexts.map { samples.decode(reader, it) },
                peakResidentBytes = host.peakResidentBytes(),
                thermalBefore = thermalBefore,
                thermalAfter = host.thermal(),
            )
        } catch (_: BenchStopped) {
            null
        }
    }
}

private const val NANOS = 1e9

// A clock may not have moved.
private const val LEAST_S = 1e-9

private class BenchStopped : Exception()

/** Reads prompts, the beginnings of one sequence of ordinary tokens, and takes the likeliest token. */
private class BenchReader(
    private val cache: KeptCache,
    private val headTokens: IntArray,
    private val ordinaryTokens: Int,
    private val stop: Stop,
) {
    private val logits = FloatArray(if (headTokens.isEmpty()) cache.vocabSize else headTokens.size)

    fun prompt(tokens: Int): IntArray {
        val random = SeededRandom(0)
        return IntArray(tokens) { (random.next() * ordinaryTokens).toInt() }
    }

    fun rewind(position: Int) = cache.rewind(position)

    fun next(ids: IntArray): Int {
        copyLogits(cache.read(ids, stop) ?: throw BenchStopped(), logits)
        val place = likeliest(logits)
        return if (headTokens.isEmpty()) place else headTokens[place]
    }

    fun requireNumbers() {
        if (logits.any { !it.isFinite() }) {
            throw EngineError("the logits are not finite numbers", "Verify the bundle on this phone.")
        }
    }
}

private class BenchSamples(
    private val plan: BenchPlan,
    private val host: BenchHost,
    private val onProgress: (Int, Int) -> Unit,
) {
    private var done = 0

    fun prefill(reader: BenchReader, tokens: Int): PrefillFigures {
        val samples = List(plan.repeat + 1) { counted { firstTokenS(reader, tokens) } }.drop(1)
        val speeds = samples.map { tokens / maxOf(it, LEAST_S) }
        return PrefillFigures(tokens, Spread.of(samples), Spread.of(speeds))
    }

    /** Fill the cache once, then decode from there again and again. */
    fun decode(reader: BenchReader, context: Int): DecodeFigures {
        reader.rewind(0)
        val first = reader.next(reader.prompt(context))
        val speeds = List(plan.repeat + 1) {
            counted {
                reader.rewind(context)
                var token = first
                val begun = host.clockNanos()
                repeat(plan.decodeTokens) { token = reader.next(intArrayOf(token)) }
                plan.decodeTokens / maxOf((host.clockNanos() - begun) / NANOS, LEAST_S)
            }
        }
        return DecodeFigures(context, Spread.of(speeds.drop(1)))
    }

    /** Return the time that filling an empty cache takes until the first token is chosen. */
    fun firstTokenS(reader: BenchReader, tokens: Int): Double {
        reader.rewind(0)
        val prompt = reader.prompt(tokens)
        val begun = host.clockNanos()
        reader.next(prompt)
        return (host.clockNanos() - begun) / NANOS
    }

    private fun counted(take: () -> Double): Double = take().also {
        done += 1
        onProgress(done, plan.samples)
    }
}
