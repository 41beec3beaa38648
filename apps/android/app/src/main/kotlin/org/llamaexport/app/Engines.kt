package org.llamaexport.app

import ai.onnxruntime.OrtEnvironment
import java.io.File
import org.llamaexport.core.Bundle
import org.llamaexport.core.EngineError
import org.llamaexport.core.StepModel
import org.llamaexport.core.Tokenizer
import org.llamaexport.core.loadTokenizer
import org.llamaexport.engine.executorch.ExecutorchStepModel
import org.llamaexport.engine.onnx.OnnxStepModel

/** What opens the two halves of a model; a test puts its own in. */
interface Engines {
    /**
     * Load a bundle's artifact, on the thread that will step it.
     *
     * @param contextTokens largest number of positions, at most the manifest's
     * @throws EngineError there is no runtime for it here, or it cannot load it
     */
    fun openEngine(bundle: Bundle, contextTokens: Int): StepModel

    /** Load the tokenizer of a bundle. */
    fun openTokenizer(folder: File): Tokenizer

    /** Return the name of the runtime for a target, with its version where it says one. */
    fun runtimeOf(target: String): String
}

/** The runtimes that the app has. */
object DeviceEngines : Engines {
    /** Targets that can be loaded, as a manifest names them. */
    val targets: Set<String> = setOf("onnx", "executorch")

    override fun openEngine(bundle: Bundle, contextTokens: Int): StepModel {
        val vocabSize = bundle.manifest.vocabSize
        return when (bundle.manifest.target) {
            "onnx" -> OnnxStepModel.open(bundle.artifact, vocabSize, contextTokens)
            "executorch" -> ExecutorchStepModel.open(bundle.artifact, vocabSize, contextTokens)
            else -> throw EngineError(
                "${bundle.folder.name} is for ${bundle.manifest.target}, which does not run on Android: " +
                    "expected onnx or executorch",
                "Export the model with --target onnx or --target executorch.",
            )
        }
    }

    override fun openTokenizer(folder: File): Tokenizer = loadTokenizer(folder)

    override fun runtimeOf(target: String): String =
        if (target == "onnx") "onnxruntime ${OrtEnvironment.getEnvironment().version}" else target
}
