package org.llamaexport.app

import java.io.File
import java.io.IOException
import java.nio.FloatBuffer
import org.llamaexport.core.AppError
import org.llamaexport.core.BadInput
import org.llamaexport.core.Bundle
import org.llamaexport.core.ChatFormat
import org.llamaexport.core.EngineError
import org.llamaexport.core.ErrorKind
import org.llamaexport.core.Generator
import org.llamaexport.core.JsonObject
import org.llamaexport.core.KeptCache
import org.llamaexport.core.Sampling
import org.llamaexport.core.StepModel
import org.llamaexport.core.modelSampling
import org.llamaexport.core.parseJson

private const val GENERATION_CONFIG = "generation_config.json"

/** Refuses every call from another thread than the one that made it: a model belongs to one. */
internal class GuardedModel(private val model: StepModel) : StepModel by model {
    private val owner = Thread.currentThread()

    override fun step(ids: IntArray, position: Int): FloatBuffer {
        requireOwner()
        return model.step(ids, position)
    }

    override fun close() {
        requireOwner()
        model.close()
    }

    private fun requireOwner() = check(Thread.currentThread() === owner) {
        "the model of ${owner.name} was called on ${Thread.currentThread().name}"
    }
}

/** A loaded model with everything that belongs to it; it stays on the model's thread. */
class OpenModel private constructor(
    val bundle: Bundle,
    val info: LoadedModel,
    val cache: KeptCache,
    val generator: Generator,
    val format: ChatFormat,
) : AutoCloseable {
    override fun close() = cache.close()

    companion object {
        /**
         * Load a bundle.
         *
         * @param contextTokens largest number of positions that are wanted
         * @throws AppError it cannot be loaded
         */
        fun open(bundle: Bundle, engines: Engines, contextTokens: Int): OpenModel {
            val manifest = bundle.manifest
            manifest.requireWriter()
            val context = minOf(contextTokens, manifest.maxContext)
            val tokenizer = engines.openTokenizer(bundle.folder)
            val format = manifest.chat?.let { ChatFormat.of(it, manifest.vocabSize) } ?: ChatFormat.UNKNOWN
            val model = try {
                GuardedModel(engines.openEngine(bundle, context))
            } catch (error: OutOfMemoryError) {
                throw EngineError(
                    "there is not enough memory to load ${bundle.folder.name}",
                    TAKE_LESS,
                    error,
                    ErrorKind.NO_MEMORY,
                )
            }
            try {
                val cache = KeptCache(model, minOf(context, model.maxContext))
                val info = LoadedModel(
                    folder = bundle.folder,
                    manifest = manifest,
                    contextTokens = cache.maxContext,
                    noChatReason = if (format.turns == null) format.reason.orEmpty() else null,
                    takesSystem = format.takesSystem,
                    sampling = samplingOf(bundle.folder),
                )
                val generator = Generator(cache, tokenizer, manifest.stopIds)
                return OpenModel(bundle, info, cache, generator, format)
            } catch (error: Throwable) {
                // Its memory is no garbage that is ever collected.
                model.close()
                throw error
            }
        }

        private fun samplingOf(folder: File): Sampling {
            val file = File(folder, GENERATION_CONFIG)
            if (!file.isFile) return Sampling()
            val text = try {
                file.readText()
            } catch (error: IOException) {
                val message = "$GENERATION_CONFIG cannot be read: ${error.message}"
                throw BadInput(message, "Copy the model again.", error)
            }
            val settings = parseJson(text, GENERATION_CONFIG) as? JsonObject ?: return Sampling()
            return modelSampling(settings).sampling
        }
    }
}
