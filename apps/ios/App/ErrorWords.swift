import LlamaAppCore
import LlamaKit

/// Words for what went wrong, in the user's language.
extension Words {
    /// Return what went wrong and what to do, with the English message below as details.
    ///
    /// What has no kind of its own is said in the words of whoever found it.
    static func fault(_ error: any Error) -> String {
        guard let known = error as? any AppError, let words = words(known.kind) else { return "\(error)" }
        return words + "\n" + String(localized: "Details: \(known.details)")
    }

    private static func words(_ kind: ErrorKind) -> String? {
        switch kind {
        case .other: return nil
        case .noMemory:
            return String(
                localized:
                    """
                    There is not enough memory. Choose a shorter context in the settings, close other \
                    apps, or take a smaller model.
                    """
            )
        case .storage:
            return String(
                localized:
                    """
                    The storage is full, or cannot be written. Delete models or files that you do not \
                    need, and try again.
                    """
            )
        case .network:
            return String(
                localized:
                    """
                    The connection failed. Look whether this device is online, and try again: what came \
                    is kept.
                    """
            )
        case .server:
            return String(
                localized:
                    "The server does not give what was asked for. Look at the address."
            )
        case .tokenWanted:
            return String(
                localized:
                    """
                    The server gives this model only to those with an access token. Choose Download and \
                    give one; on the Hugging Face Hub, accept the model’s licence first.
                    """
            )
        case .address:
            return String(
                localized:
                    """
                    This is no address of a model. Enter an address that begins with https://, or \
                    owner/name.
                    """
            )
        case .noBundle:
            return String(
                localized:
                    "There is no model in it. Choose a zip or a folder that llama-export wrote."
            )
        case .incomplete:
            return String(
                localized:
                    "The model is incomplete: files are missing, or cut off. Copy or download it again."
            )
        case .wrongBytes:
            return String(
                localized:
                    "The model’s files were changed or damaged on the way. Copy or download it again."
            )
        case .damaged:
            return String(localized: "The model’s files cannot be used. Get the model again.")
        case .newerFormat:
            return String(
                localized:
                    """
                    The model was exported for a newer version of this app. Update the app, or export \
                    the model again with an older llama-export.
                    """
            )
        case .nameTaken:
            return String(
                localized:
                    """
                    A model of this name is on this device already. Delete it first, or give the new one \
                    another name.
                    """
            )
        case .contextFull:
            return String(
                localized:
                    """
                    The text is longer than the context. Shorten it, or choose a longer context in the \
                    settings.
                    """
            )
        case .setting:
            return String(localized: "A setting is out of its range, which stands beside its field.")
        case .runtimeVersion:
            return String(
                localized:
                    """
                    The model was exported for another version of its runtime. Update the app, or export \
                    the model again.
                    """
            )
        case .engine:
            return String(
                localized:
                    "The model’s runtime failed. Load the model again; if that fails too, share the log."
            )
        }
    }
}
