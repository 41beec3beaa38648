private let memory = "Close other apps, choose a shorter context, or take a smaller model."
private let versions =
    "The model was exported for another version of ExecuTorch: export it again with the version "
    + "that this app has, or update the app."
private let damaged = "A file of the model is missing or damaged: get the bundle again."
private let next = "Load the model again; if that fails too, share the log."

/// Turn an error of ExecuTorch's into one of ours, with what its number means and what to do.
///
/// - Parameters:
///   - what: what was to be done, as in "ExecuTorch cannot ..."
///   - code: ExecuTorch's number, as its runtime/core/error.h has it
///   - message: the runtime's own words
public func executorchError(_ what: String, code: Int, message: String) -> any AppError {
    let text = { (meaning: String) in
        "ExecuTorch cannot \(what): \(meaning) (0x\(String(code, radix: 16))). \(message)"
    }
    switch code {
    case 0x10, 0x11, 0x14:
        return EngineError(
            text("this app has not got an operator of the model"), hint: versions, kind: .runtimeVersion)
    case 0x23:
        return BundleError(
            text("the file is damaged, or of a newer format"), hint: versions, kind: .runtimeVersion)
    case 0x30:
        return EngineError(
            text("the model's delegate is not this app's"), hint: versions, kind: .runtimeVersion)
    case 0x21, 0x31:
        return EngineError(text("there is not enough memory"), hint: memory, kind: .noMemory)
    case 0x20, 0x22:
        return BundleError(text("a file cannot be read"), hint: damaged, kind: .incomplete)
    case 0x12:
        return EngineError(text("the model takes other inputs, or no more of them"), hint: next)
    default:
        return EngineError(text("the runtime failed"), hint: next)
    }
}
