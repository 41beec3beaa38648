package org.llamaexport.engine.executorch

import org.llamaexport.core.AppError
import org.llamaexport.core.BundleError
import org.llamaexport.core.EngineError
import org.llamaexport.core.ErrorKind
import org.pytorch.executorch.ExecutorchRuntimeException

private const val MEMORY = "Close other apps, choose a shorter context, or take a smaller model."
private const val VERSIONS =
    "The model was exported for another version of ExecuTorch: export it again with the version " +
        "that this app has, or update the app."
private const val DAMAGED = "A file of the model is missing or damaged: get the bundle again."
internal const val EXPORT_AGAIN =
    "Export the model again with --target executorch, without --all-logits and --kv-cache io."
private const val NEXT = "Load the model again; if that fails too, share the log."

/** Run what ExecuTorch does with a program, and say in words what goes wrong. */
internal inline fun <T> inWords(what: String, run: () -> T): T {
    try {
        return run()
    } catch (error: ExecutorchRuntimeException) {
        throw describe(what, error.errorCode, error)
    } catch (error: IllegalArgumentException) {
        // Its own class for 0x12 is one of these, and so is what it says to a path.
        throw describe(what, INVALID_ARGUMENT, error)
    } catch (error: IllegalStateException) {
        // What it says to a value of another kind, such as logits that are no float32.
        throw BundleError("ExecuTorch cannot $what: ${error.message}", EXPORT_AGAIN, error)
    } catch (error: OutOfMemoryError) {
        val text = "not enough memory to $what: ${error.message}"
        throw EngineError(text, MEMORY, error, ErrorKind.NO_MEMORY)
    } catch (error: LinkageError) {
        throw EngineError(
            "this phone cannot load ExecuTorch: $error",
            "Take a model in another format, such as ONNX.",
            error,
        )
    }
}

internal const val INVALID_ARGUMENT = 0x12
private val VERSION = ErrorKind.RUNTIME_VERSION
private const val NOT_SUPPORTED = 0x10
private const val NOT_IMPLEMENTED = 0x11
private const val OPERATOR_MISSING = 0x14
private const val NOT_FOUND = 0x20
private const val ALLOCATION_FAILED = 0x21
private const val ACCESS_FAILED = 0x22
private const val INVALID_PROGRAM = 0x23
private const val DELEGATE_INCOMPATIBLE = 0x30
private const val DELEGATE_ALLOCATION_FAILED = 0x31

/** Turn an error of ExecuTorch's into one of ours, with what its number means and what to do. */
internal fun describe(what: String, code: Int, cause: Throwable): AppError {
    val message = { meaning: String ->
        "ExecuTorch cannot $what: $meaning (0x${code.toString(16)}). ${cause.message.orEmpty()}"
    }
    return when (code) {
        OPERATOR_MISSING, NOT_IMPLEMENTED, NOT_SUPPORTED ->
            EngineError(message("this app has not got an operator of the model"), VERSIONS, cause, VERSION)
        INVALID_PROGRAM ->
            BundleError(message("the file is damaged, or of a newer format"), VERSIONS, cause, VERSION)
        DELEGATE_INCOMPATIBLE ->
            EngineError(message("the model's delegate is not this app's"), VERSIONS, cause, VERSION)
        ALLOCATION_FAILED, DELEGATE_ALLOCATION_FAILED ->
            EngineError(message("there is not enough memory"), MEMORY, cause, ErrorKind.NO_MEMORY)
        NOT_FOUND, ACCESS_FAILED ->
            BundleError(message("a file cannot be read"), DAMAGED, cause, ErrorKind.INCOMPLETE)
        INVALID_ARGUMENT ->
            EngineError(message("the model takes other inputs, or no more of them"), NEXT, cause)
        else -> EngineError(message("the runtime failed"), NEXT, cause)
    }
}
