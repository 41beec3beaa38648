package org.llamaexport.core

/** Which bundle was measured; null where it does not say. */
data class BenchBundle(
    val folder: String,
    val model: String,
    val target: String,
    val recipe: String?,
    val groupSize: Int?,
    val sizeBytes: Long?,
)

/**
 * The phone that was measured; null: not known.
 *
 * @property name maker and model, and the system's version
 * @property cores number of cores
 * @property memoryBytes size of its memory
 */
data class BenchDevice(val name: String, val cores: Int?, val memoryBytes: Long?)

/**
 * How many threads the runtime was given.
 *
 * @property count number of threads; null: the runtime chose, and does not say
 * @property chosenBy who chose: the runtime's default, or the app's setting
 */
data class BenchThreads(val count: Int?, val chosenBy: String)

private const val REPORT_VERSION = 1

/**
 * Return the report of a measurement, with the keys of `llama-export bench --json`, and `device` and
 * `thermal`; null is what a phone does not know.
 */
fun BenchResult.report(
    plan: BenchPlan,
    bundle: BenchBundle,
    device: BenchDevice,
    threads: BenchThreads,
    notes: List<String> = emptyList(),
): JsonObject = JsonObject(
    "format_version" to JsonNumber(REPORT_VERSION),
    "bundle" to JsonObject(
        "folder" to JsonText(bundle.folder),
        "model" to JsonText(bundle.model),
        "target" to JsonText(bundle.target),
        "recipe" to text(bundle.recipe),
        "group_size" to number(bundle.groupSize),
        "size_bytes" to number(bundle.sizeBytes),
    ),
    "machine" to JsonObject(
        "cores" to number(device.cores),
        "physical_cores" to JsonNull,
        "memory_bytes" to number(device.memoryBytes),
    ),
    "settings" to JsonObject(
        "threads" to number(threads.count),
        "threads_chosen_by" to JsonText(threads.chosenBy),
        "prompt_lengths" to numbers(plan.promptLengths),
        "contexts" to numbers(plan.contexts),
        "decode_tokens" to JsonNumber(plan.decodeTokens),
        "repeat" to JsonNumber(plan.repeat),
        "warm_up" to JsonNumber(1),
    ),
    "load_s" to JsonNumber(loadS),
    "resident_before_bytes" to number(residentBeforeBytes),
    "resident_bytes" to number(residentBytes),
    "peak_resident_bytes" to number(peakResidentBytes),
    "first_call_tokens" to JsonNumber(firstCallTokens),
    "first_call_s" to JsonNumber(firstCallS),
    "prefill" to JsonArray(
        prefill.map {
            JsonObject(
                "tokens" to JsonNumber(it.tokens),
                "first_token_s" to it.firstTokenS.json(),
                "tokens_per_s" to it.tokensPerS.json(),
            )
        },
    ),
    "decode" to JsonArray(
        decode.map {
            JsonObject("context" to JsonNumber(it.context), "tokens_per_s" to it.tokensPerS.json())
        },
    ),
    // What other processes do, and how fast the memory is, no app may see.
    "others_before" to JsonNull,
    "others_during" to JsonNull,
    "load_average" to JsonNull,
    "was_busy" to JsonNull,
    "bandwidth" to JsonNull,
    "reads" to JsonNull,
    "fits_caches" to JsonNull,
    "notes" to JsonArray(notes.map(::JsonText)),
    "device" to JsonText(device.name),
    "thermal" to JsonObject("before" to text(thermalBefore), "after" to text(thermalAfter)),
)

private fun text(value: String?): Json = if (value == null) JsonNull else JsonText(value)

private fun number(value: Int?): Json = if (value == null) JsonNull else JsonNumber(value)

private fun number(value: Long?): Json = if (value == null) JsonNull else JsonNumber(value)

private fun numbers(values: List<Int>): JsonArray = JsonArray(values.map(::JsonNumber))
