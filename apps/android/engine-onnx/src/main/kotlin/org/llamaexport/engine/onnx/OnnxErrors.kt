package org.llamaexport.engine.onnx

import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtException.OrtErrorCode
import org.llamaexport.core.AppError
import org.llamaexport.core.BundleError
import org.llamaexport.core.EngineError
import org.llamaexport.core.ErrorKind
import org.llamaexport.core.StepStopped

private const val NEWER = "This app's onnxruntime is older than the model: update the app, or export again."
private const val MEMORY = "Close other apps, choose a shorter context, or take a smaller model."
private const val DAMAGED = "A file of the model is missing or damaged: get the bundle again."
private const val NEXT = "Load the model again; if that fails too, share the log."

/** Run what onnxruntime does with a model, and say in words what goes wrong. */
internal inline fun <T> inWords(what: String, run: () -> T): T {
    try {
        return run()
    } catch (error: OrtException) {
        throw describe(what, error)
    } catch (error: OutOfMemoryError) {
        val message = "not enough memory to $what: ${error.message}"
        throw EngineError(message, MEMORY, error, ErrorKind.NO_MEMORY)
    } catch (error: LinkageError) {
        throw EngineError(
            "this phone cannot load onnxruntime: $error",
            "Take a model in another format, such as .pte.",
            error,
        )
    }
}

/** Turn an exception of onnxruntime's into one of ours, with what to do. */
internal fun describe(what: String, error: OrtException): AppError {
    val text = error.message.orEmpty()
    val message = "onnxruntime cannot $what: $text"
    return when {
        "terminate flag" in text -> StepStopped(error)
        "allocat" in text || "bad_alloc" in text ->
            EngineError(message, MEMORY, error, ErrorKind.NO_MEMORY)
        "under development" in text || "ONNX Runtime only *guarantees*" in text ->
            EngineError(message, NEWER, error, ErrorKind.RUNTIME_VERSION)
        error.code == OrtErrorCode.ORT_NOT_IMPLEMENTED || "is not a registered" in text ->
            EngineError(message, NEWER, error, ErrorKind.RUNTIME_VERSION)
        // A data file that is missing or short has no code of its own.
        error.code in DAMAGES || "xternal data" in text || "xternal initializer" in text ->
            BundleError(message, DAMAGED, error, ErrorKind.INCOMPLETE)
        else -> EngineError(message, NEXT, error)
    }
}

private val DAMAGES = setOf(
    OrtErrorCode.ORT_NO_SUCHFILE,
    OrtErrorCode.ORT_NO_MODEL,
    OrtErrorCode.ORT_INVALID_PROTOBUF,
    OrtErrorCode.ORT_INVALID_GRAPH,
)
