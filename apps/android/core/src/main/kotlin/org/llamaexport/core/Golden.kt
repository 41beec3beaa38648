package org.llamaexport.core

import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.min
import org.llamaexport.core.tokenizer.textOf

/** Name of the file in a bundle that has its golden data. */
const val GOLDEN_NAME: String = "golden.json"

/** Largest length of golden data; those of a bundle have some 40 kB. */
internal const val MOST_GOLDEN_BYTES: Int = 2 * 1024 * 1024

// Five digits of each logarithm, and a phone's float32.
private const val SUM_SPREAD = 1e-3

/** Return whether logarithms of probability are those of everything that can come. */
internal fun addUp(logprobs: DoubleArray, restLogprob: Double?): Boolean {
    val rest = if (restLogprob == null) 0.0 else exp(min(restLogprob, 1.0))
    return abs(logprobs.sumOf { exp(min(it, 1.0)) } + rest - 1) <= SUM_SPREAD
}

/**
 * One call of an artifact.
 *
 * @property text text that is read
 * @property first position of the first token that is read; what the cache holds from there on is
 *     forgotten
 * @property at position of the last token that is read
 */
data class GoldenCall(val text: GoldenText, val first: Int, val at: Int) {
    /** Words for a message. */
    val named: String
        get() = (if (first == at) "position $at" else "positions $first to $at") + " of the ${text.key} text"
}

/** The texts that golden calls read: the first one, and one that parts from it after a rewind. */
enum class GoldenText(val key: String) { PROMPT("prompt"), REWIND("rewind") }

/**
 * What an artifact answered to a call on the machine that exported it.
 *
 * @property places indices of the largest logits, the likeliest first
 * @property logprobs their logarithms of probability
 * @property restLogprob that of all other places together; null: there are no others
 */
class GoldenAnswer(
    val call: GoldenCall,
    val places: IntArray,
    val logprobs: DoubleArray,
    val restLogprob: Double?,
)

/**
 * How far a phone may be from the golden data.
 *
 * @property klMean mean KL over the calls, in nats
 * @property klWorst KL of one call, in nats
 * @property margin distance of the two likeliest tokens, in nats, beyond which the first must be the
 *     phone's as well
 */
data class GoldenLimits(val klMean: Double, val klWorst: Double, val margin: Double)

/**
 * A bundle's golden data: what its artifact answers, call by call.
 *
 * @property target name of the target
 * @property runtime what ran the artifact, with its version
 * @property promptIds tokens of the first text
 * @property rewindTo number of its tokens with which the second text begins
 * @property rewindIds tokens that follow there
 * @property answers answers in the order of the calls
 */
class Golden(
    val target: String,
    val runtime: String,
    val promptIds: IntArray,
    val rewindTo: Int,
    val rewindIds: IntArray,
    val limits: GoldenLimits,
    val answers: List<GoldenAnswer>,
) {
    /** Return the tokens that a call reads. */
    fun idsOf(call: GoldenCall): IntArray {
        val ids = when (call.text) {
            GoldenText.PROMPT -> promptIds
            GoldenText.REWIND -> promptIds.copyOf(rewindTo) + rewindIds
        }
        return ids.copyOfRange(call.first, call.at + 1)
    }

    companion object {
        private const val VERSION = 1
        private const val HINT = "Export the bundle again, or update the app."

        /**
         * Parse a golden.json; [Bundle.readGolden] compares its hash first.
         *
         * @throws BundleError it is no JSON, of a newer format, or a field is wrong
         */
        fun parse(content: ByteArray, where: String = GOLDEN_NAME): Golden = try {
            GoldenReader(parseJson(textOf(content, where), where).fields(where)).read()
        } catch (error: BadInput) {
            throw BundleError(error.message.orEmpty(), HINT, error)
        }

        internal fun requireVersion(top: JsonFields) {
            val version = top.int("format_version")
            if (version != VERSION) {
                throw BadInput("${top.at("format_version")}: expected $VERSION, found $version", HINT)
            }
        }
    }
}

private class GoldenReader(private val top: JsonFields) {
    fun read(): Golden {
        Golden.requireVersion(top)
        val rewind = top.fields("rewind")
        val limits = top.fields("limits")
        val answers = top.list("positions")
        if (answers.size !in 1..MOST_CALLS) fault(top, "positions", "1 to $MOST_CALLS", answers.size)
        val golden = Golden(
            target = top.text("target"),
            runtime = top.text("runtime"),
            promptIds = ids(top, "prompt_ids"),
            rewindTo = rewind.int("to"),
            rewindIds = ids(rewind, "ids"),
            limits = GoldenLimits(
                klMean = limit(limits, "kl_mean"),
                klWorst = limit(limits, "kl_worst"),
                margin = limit(limits, "margin"),
            ),
            answers = answers.mapIndexed { at, raw -> answer(raw.fields("${top.where}: positions[$at]")) },
        )
        requireCallable(golden)
        return golden
    }

    private fun answer(raw: JsonFields): GoldenAnswer {
        val text = raw.text("text")
        val call = GoldenCall(
            GoldenText.entries.find { it.key == text } ?: fault(raw, "text", "prompt or rewind", text),
            raw.int("from"),
            raw.int("at"),
        )
        val top = raw.list("top")
        if (top.size !in 1..MOST_TOP) fault(raw, "top", "1 to $MOST_TOP pairs", top.size)
        val pairs = top.map { pair(it, raw) }
        val places = pairs.map { it.first }.toIntArray()
        if (places.toSet().size != places.size) fault(raw, "top", "places that differ", "one twice")
        val rest = if (REST in raw) logprob(raw.double(REST), raw, REST) else null
        val logprobs = pairs.map { it.second }.toDoubleArray()
        if (!addUp(logprobs, rest)) fault(raw, "top", "probabilities that add up to 1", "others")
        return GoldenAnswer(call, places, logprobs, rest)
    }

    private fun pair(value: Json, raw: JsonFields): Pair<Int, Double> {
        val items = (value as? JsonArray)?.items
        val place = (items?.getOrNull(0) as? JsonNumber)?.text?.toIntOrNull()
        val logprob = (items?.getOrNull(1) as? JsonNumber)?.double()
        if (items?.size != 2 || place == null || place < 0 || logprob == null) {
            fault(raw, "top", "pairs of a place and a logarithm", value.kind)
        }
        return place to logprob(logprob, raw, "top")
    }

    private fun logprob(value: Double, raw: JsonFields, key: String): Double {
        if (value !in LOWEST..HIGHEST) fault(raw, key, "a logarithm of probability", value)
        return value
    }

    private fun limit(limits: JsonFields, key: String): Double {
        val found = limits.double(key)
        if (found < 0) fault(limits, key, "at least 0", found)
        return found
    }

    private fun ids(owner: JsonFields, key: String): IntArray {
        val found = owner.list(key).map { (it as? JsonNumber)?.text?.toIntOrNull() ?: -1 }
        if (found.size !in 1..MOST_IDS || found.any { it < 0 }) {
            fault(owner, key, "1 to $MOST_IDS token ids", "another list of ${found.size}")
        }
        return found.toIntArray()
    }

    /** Refuse positions outside the texts, or beyond what was read. */
    private fun requireCallable(golden: Golden) {
        if (golden.rewindTo !in 0..golden.promptIds.size) {
            fault(top.fields("rewind"), "to", "at most ${golden.promptIds.size}", golden.rewindTo)
        }
        val lengths = mapOf(
            GoldenText.PROMPT to golden.promptIds.size,
            GoldenText.REWIND to golden.rewindTo + golden.rewindIds.size,
        )
        var held = 0
        for ((number, answer) in golden.answers.withIndex()) {
            val call = answer.call
            if (call.first !in 0..minOf(held, call.at) || call.at >= lengths.getValue(call.text)) {
                fault(top, "positions[$number]", "positions that were read", "${call.first} to ${call.at}")
            }
            held = call.at + 1
        }
    }

    private fun fault(owner: JsonFields, key: String, expected: String, found: Any): Nothing {
        val shown = found.toString().take(SHOWN_CHARS)
        throw BadInput("${owner.at(key)}: expected $expected, found $shown", "")
    }

    private companion object {
        const val MOST_CALLS = 1024
        const val MOST_IDS = 4096
        const val MOST_TOP = 64
        const val LOWEST = -1e5
        const val HIGHEST = 0.1
        const val REST = "rest_logprob"
        const val SHOWN_CHARS = 80
    }
}
