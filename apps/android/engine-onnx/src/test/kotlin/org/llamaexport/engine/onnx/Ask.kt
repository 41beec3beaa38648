package org.llamaexport.engine.onnx

import java.io.File
import org.llamaexport.core.Bundle
import org.llamaexport.core.Chat
import org.llamaexport.core.ChatFormat
import org.llamaexport.core.Generator
import org.llamaexport.core.KeptCache
import org.llamaexport.core.Sampling
import org.llamaexport.core.Stop
import org.llamaexport.core.WriteSettings
import org.llamaexport.core.loadTokenizer

/** Open a bundle, ask a question and hand out the answer as it is written; on one thread of yours. */
fun ask(folder: File, question: String, stop: Stop, onPiece: (String) -> Unit) {
    val bundle = Bundle.open(folder)
    bundle.checkHashes { true }
    val manifest = bundle.manifest
    val format = manifest.chat?.let { ChatFormat.of(it, manifest.vocabSize) } ?: ChatFormat.UNKNOWN
    val context = minOf(2048, manifest.maxContext)
    OnnxStepModel.open(bundle.artifact, manifest.vocabSize, context).use { model ->
        val generator = Generator(KeptCache(model), loadTokenizer(folder), manifest.stopIds)
        val settings = WriteSettings(Sampling(temperature = 0.0), maxTokens = 256)
        if (format.turns != null) {
            Chat(generator, format, system = "Answer in one sentence.").send(
                question, settings, stop, onPiece = onPiece,
            )
        } else {
            val run = generator.begin(question, settings)
            while (true) onPiece(run.next(stop) ?: break)
        }
    }
}
