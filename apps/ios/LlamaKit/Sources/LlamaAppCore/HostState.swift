import Foundation
import LlamaKit

/// A model that is in memory, as the screens see it.
public struct LoadedModel: Sendable {
    /// Its bundle.
    public let bundle: ModelBundle

    /// Number of positions that there are.
    public let contextTokens: Int

    /// Why it has no turns, so that it only continues texts; nil: it chats.
    public let noChatReason: String?

    /// Whether its dialogs have a place for a system message.
    public let takesSystem: Bool

    /// Settings that its bundle asks for.
    public let sampling: Sampling

    /// Name of its folder.
    public var name: String { bundle.folder.lastPathComponent }
}

/// What a load is at.
public enum LoadStep: Sendable, Equatable {
    /// Reading, compiling or loading.
    case opening

    /// Comparing hashes; so many bytes of all.
    case checking(doneBytes: Int64, sizeBytes: Int64)

    /// Waiting for the app to be active.
    case waiting
}

/// What the one model is at.
public enum HostState: Sendable {
    /// No model is in memory; `freed`: name of the one whose memory the system needed.
    case idle(freed: String?)

    /// A model is being loaded.
    case loading(name: String, LoadStep)

    /// A model waits for a message.
    case ready(LoadedModel)

    /// It writes, or is measured.
    case busy(LoadedModel)

    /// A model could not be loaded.
    case failed(name: String, any AppError)

    /// The model that is in memory, or nil.
    public var loaded: LoadedModel? {
        switch self {
        case .ready(let model), .busy(let model): model
        default: nil
        }
    }

    /// Whether a model waits for a message.
    public var isReady: Bool {
        if case .ready = self { return true }
        return false
    }

    /// Whether it writes, or is measured.
    public var isBusy: Bool {
        if case .busy = self { return true }
        return false
    }

    /// Whether nothing else can be begun.
    public var isWorking: Bool {
        switch self {
        case .loading, .busy: true
        default: false
        }
    }
}
