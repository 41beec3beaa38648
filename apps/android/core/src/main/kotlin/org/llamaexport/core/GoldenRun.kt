package org.llamaexport.core

import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.max

private const val LEAST = 1e-30
private const val LEAST_REST = 1e-300
private const val ROUNDING = 1e5
private const val REPORT_VERSION = 1

/**
 * What this phone computed after one golden call.
 *
 * @property logprobs logarithms of probability of the golden answer's places, in its order; NaN: no
 *     finite number
 * @property restLogprob that of all other places together; null: there are no others; NaN as above
 * @property best this phone's own likeliest place; null: none
 */
class Measured(val call: GoldenCall, val logprobs: DoubleArray, val restLogprob: Double?, val best: Int?)

/**
 * What golden calls gave, beside their limits.
 *
 * @property klMean mean KL from the golden data, in nats; infinite where there are no numbers
 * @property klWorst KL of the worst call, in nats
 * @property swapped number of calls with another likeliest token, of those with a clear one
 * @property unsound number of calls whose probabilities are not finite, or do not add up to 1
 * @property firstBeyond the first call out of bounds, in words; null: none is
 * @property limits how far off all of it may be
 */
data class GoldenVerdict(
    val klMean: Double,
    val klWorst: Double,
    val swapped: Int,
    val unsound: Int,
    val firstBeyond: String?,
    val limits: GoldenLimits,
) {
    /** Whether this phone computes what the exporter's machine does. */
    val isGreen: Boolean
        get() = klMean <= limits.klMean && klWorst <= limits.klWorst && swapped == 0 && unsound == 0

    /** Return plain data, null where a figure is infinite. */
    fun json(): JsonObject = JsonObject(
        "green" to JsonBool(isGreen),
        "kl_mean" to finiteJson(klMean),
        "kl_worst" to finiteJson(klWorst),
        "top1_swapped" to JsonNumber(swapped),
        "unsound" to JsonNumber(unsound),
        "first_beyond" to (firstBeyond?.let(::JsonText) ?: JsonNull),
    )
}

/**
 * Make a bundle's golden calls and keep what this phone computes.
 *
 * @param cache cache of the loaded artifact, which forgets what it held
 * @param logitCount number of logits; less than the vocabulary where the head was pruned
 * @param onProgress called before each call, with the number of calls made so far, and of all
 * @return measurements in the order of the calls; null: it was stopped
 * @throws BundleError the data speak of places that the artifact has not
 * @throws PromptError the context is too short for the calls
 * @throws EngineError the runtime failed
 */
fun Golden.run(
    cache: KeptCache,
    logitCount: Int = cache.vocabSize,
    stop: Stop = Stop(),
    onProgress: (Int, Int) -> Unit = { _, _ -> },
): List<Measured>? {
    val beyond = answers.flatMap { it.places.asList() }.find { it >= logitCount }
    if (beyond != null) {
        throw BundleError(
            "$GOLDEN_NAME: expected places of $logitCount logits, found $beyond",
            "It belongs to another model: get the whole bundle again.",
        )
    }
    val logits = FloatArray(logitCount)
    val measured = ArrayList<Measured>(answers.size)
    for ((number, answer) in answers.withIndex()) {
        onProgress(number, answers.size)
        cache.rewind(answer.call.first)
        val buffer = cache.read(idsOf(answer.call), stop) ?: return null
        copyLogits(buffer, logits)
        measured += measure(answer, logits)
    }
    return measured
}

/** Compare what was measured with golden answers, as the desktop does with the report. */
fun Golden.judge(measured: List<Measured>): GoldenVerdict {
    require(measured.map { it.call } == answers.map { it.call }) { "expected a measurement of each call" }
    val kl = answers.zip(measured) { answer, found -> divergence(answer, found) }
    val swapped = answers.indices.filter { isSwapped(answers[it], measured[it], limits.margin) }
    val unsound = measured.indices.filterNot { addsUp(measured[it]) }
    val beyond = (swapped + unsound + kl.indices.filter { kl[it] > limits.klWorst }).minOrNull()
    return GoldenVerdict(
        klMean = kl.average(),
        klWorst = kl.max(),
        swapped = swapped.size,
        unsound = unsound.size,
        firstBeyond = beyond?.let { "${answers[it].call.named}, call ${it + 1}" },
        limits = limits,
    )
}

/**
 * Return the report that `llama-export verify --device-report` reads.
 *
 * @param device what the phone says of itself, such as its model and system; at most 16 short texts
 * @param runtime what ran the artifact here, with its version
 * @param manifestSha256 SHA-256 of the bundle's manifest.json, in hex
 */
fun Golden.report(
    measured: List<Measured>,
    device: Map<String, String>,
    runtime: String,
    manifestSha256: String,
): JsonObject = JsonObject(
    "format_version" to JsonNumber(REPORT_VERSION),
    "device" to JsonObject(device.mapValues { JsonText(it.value) }),
    "runtime" to JsonText(runtime),
    "manifest_sha256" to JsonText(manifestSha256),
    "verdict" to judge(measured).json(),
    "positions" to JsonArray(
        measured.map { each ->
            JsonObject(
                "at" to JsonNumber(each.call.at),
                "logprobs" to JsonArray(each.logprobs.map(::finiteJson)),
                "rest_logprob" to (each.restLogprob?.let(::finiteJson) ?: JsonNull),
                "best" to (each.best?.let(::JsonNumber) ?: JsonNull),
            )
        },
    ),
)

/** Measure logits at the places of a golden answer. */
internal fun measure(answer: GoldenAnswer, logits: FloatArray): Measured {
    val isNamed = BooleanArray(logits.size)
    for (place in answer.places) isNamed[place] = true
    var largest = Float.NEGATIVE_INFINITY
    var best: Int? = null
    for (place in logits.indices) {
        if (logits[place] > largest) {
            largest = logits[place]
            best = place
        }
    }
    var named = 0.0
    var others = 0.0
    for (place in logits.indices) {
        val share = exp(logits[place].toDouble() - largest)
        if (isNamed[place]) named += share else others += share
    }
    val total = ln(named + others)
    val logprobs = DoubleArray(answer.places.size) {
        rounded(logits[answer.places[it]].toDouble() - largest - total)
    }
    val rest = if (logits.size == answer.places.size) null else rounded(ln(max(others, LEAST_REST)) - total)
    return Measured(answer.call, logprobs, rest, best)
}

/** To five digits; NaN where it is no finite number. The desktop judges what is written. */
private fun rounded(value: Double): Double =
    if (abs(value) < Double.MAX_VALUE / ROUNDING) Math.rint(value * ROUNDING) / ROUNDING else Double.NaN

private fun Measured.all(): DoubleArray = if (restLogprob == null) logprobs else logprobs + restLogprob

private fun addsUp(measured: Measured): Boolean =
    measured.best != null && addUp(measured.logprobs, measured.restLogprob)

/** Return the KL from the golden answer, in nats; infinite where nothing can be compared. */
private fun divergence(answer: GoldenAnswer, measured: Measured): Double {
    val expected = if (answer.restLogprob == null) answer.logprobs else answer.logprobs + answer.restLogprob
    val found = measured.all()
    if (!addsUp(measured) || found.size != expected.size) return Double.POSITIVE_INFINITY
    // Both are rounded, so neither adds up to 1 exactly.
    val expectedSum = expected.sumOf { exp(it) }
    val foundSum = found.sumOf { exp(it) }
    val kl = expected.indices.sumOf {
        val one = exp(expected[it]) / expectedSum
        one * ln(max(one, LEAST) / max(exp(found[it]) / foundSum, LEAST))
    }
    return max(kl, 0.0)
}

private fun isSwapped(answer: GoldenAnswer, measured: Measured, margin: Double): Boolean {
    val second = answer.logprobs.getOrElse(1) { Double.NEGATIVE_INFINITY }
    return answer.logprobs[0] - second > margin && measured.best != answer.places[0]
}

private fun finiteJson(value: Double): Json = if (value.isFinite()) JsonNumber(value) else JsonNull
