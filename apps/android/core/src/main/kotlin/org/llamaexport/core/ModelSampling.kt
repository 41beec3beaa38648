package org.llamaexport.core

/**
 * How a model wants its tokens drawn.
 *
 * @property sampling settings that its bundle asks for; where it says nothing of one, ours
 * @property passedOver what it asked for that no sampling can have, a sentence each
 */
data class ModelSampling(val sampling: Sampling, val passedOver: List<String>)

/**
 * Read the generation_config.json of a bundle.
 *
 * `do_sample: false` takes the likeliest token; a file without that key says nothing of it.
 *
 * @param settings keys of the file
 */
fun modelSampling(settings: JsonObject): ModelSampling {
    var found = Sampling()
    val passedOver = ArrayList<String>()
    for ((key, change) in CHANGES) {
        val value = settings[key] ?: continue
        if (value == JsonNull) continue
        val changed = try {
            (value as? JsonNumber)?.let { change(found, it) }
        } catch (_: BadInput) {
            null
        }
        if (changed == null) {
            val shown = value.write().take(SHOWN_CHARS)
            passedOver += "generation_config.json: $key cannot be $shown; it is passed over"
        } else {
            found = changed
        }
    }
    if (settings["do_sample"] == JsonBool(false)) found = found.copy(temperature = 0.0)
    return ModelSampling(found, passedOver)
}

private const val SHOWN_CHARS = 80
private val CHANGES: Map<String, (Sampling, JsonNumber) -> Sampling> = linkedMapOf(
    "temperature" to { found, value -> found.copy(temperature = value.double()) },
    "top_p" to { found, value -> found.copy(topP = value.double()) },
    "top_k" to { found, value -> found.copy(topK = value.int()) },
    "min_p" to { found, value -> found.copy(minP = value.double()) },
    "repetition_penalty" to { found, value -> found.copy(repetitionPenalty = value.double()) },
)
