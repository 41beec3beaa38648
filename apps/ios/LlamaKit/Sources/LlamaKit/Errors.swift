/// What went wrong, so that an app can say it in the user's language; the message has the details.
public enum ErrorKind: String, Sendable, CaseIterable {
    /// Whatever has no kind of its own.
    case other

    /// There is too little memory.
    case noMemory

    /// The storage is full, or refuses to be written.
    case storage

    /// No server was reached, or it fell silent.
    case network

    /// A server answered something else than what was asked for.
    case server

    /// A server gives it to those with a token alone.
    case tokenWanted

    /// What was typed is no address of a model.
    case address

    /// It holds no manifest.
    case noBundle

    /// Files of a bundle are missing or cut off.
    case incomplete

    /// Files of a bundle have other bytes than its manifest says.
    case wrongBytes

    /// A bundle or its tokenizer cannot be read.
    case damaged

    /// A bundle is of a newer format than this app.
    case newerFormat

    /// A model of that name is there.
    case nameTaken

    /// A text is longer than the context.
    case contextFull

    /// A setting is out of its range.
    case setting

    /// A runtime is not the one that a model was exported for.
    case runtimeVersion

    /// A runtime cannot load a model, or run it.
    case engine
}

/// An error that a person can act on.
public protocol AppError: Error, Sendable, CustomStringConvertible {
    /// What is wrong: what, where, what was expected and what was found.
    var message: String { get }

    /// What to do about it; empty where nothing can be done.
    var hint: String { get }

    /// What went wrong, in a word.
    var kind: ErrorKind { get }
}

extension AppError {
    /// None of its own.
    public var kind: ErrorKind { .other }

    /// The message and, where there is one, what to do.
    public var description: String { hint.isEmpty ? message : message + "\n" + hint }
}

/// Data of others that is not what it should be: JSON, a number in a setting, a file's name.
public struct BadInput: AppError, Equatable {
    public let message: String
    public let hint: String
    public let kind: ErrorKind

    public init(_ message: String, hint: String, kind: ErrorKind = .other) {
        self.message = message
        self.hint = hint
        self.kind = kind
    }
}

/// A bundle that is incomplete, damaged, newer than this app, or not meant for it.
public struct BundleError: AppError, Equatable {
    public let message: String
    public let hint: String
    public let kind: ErrorKind

    public init(_ message: String, hint: String, kind: ErrorKind = .damaged) {
        self.message = message
        self.hint = hint
        self.kind = kind
    }
}

/// A runtime that cannot load an artifact or run it.
public struct EngineError: AppError, Equatable {
    public let message: String
    public let hint: String
    public let kind: ErrorKind

    public init(_ message: String, hint: String, kind: ErrorKind = .engine) {
        self.message = message
        self.hint = hint
        self.kind = kind
    }
}

/// Text or tokens that the model cannot take: none at all, unknown ones, or more than fit.
public struct PromptError: AppError, Equatable {
    public let message: String
    public let hint: String
    public let kind: ErrorKind

    public init(_ message: String, hint: String, kind: ErrorKind = .other) {
        self.message = message
        self.hint = hint
        self.kind = kind
    }
}

/// A step that ended early because it was told to; no fault of anybody's.
public struct StepStopped: AppError, Equatable {
    public let message = "the step was stopped"
    public let hint = ""

    public init() {}
}
