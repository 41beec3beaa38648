/// An error that a person can act on.
public protocol AppError: Error, Sendable, CustomStringConvertible {
    /// What is wrong: what, where, what was expected and what was found.
    var message: String { get }

    /// What to do about it; empty where nothing can be done.
    var hint: String { get }
}

extension AppError {
    /// The message and, where there is one, what to do.
    public var description: String { hint.isEmpty ? message : message + "\n" + hint }
}

/// Data of others that is not what it should be: JSON, a number in a setting, a file's name.
public struct BadInput: AppError, Equatable {
    public let message: String
    public let hint: String

    public init(_ message: String, hint: String) {
        self.message = message
        self.hint = hint
    }
}

/// A bundle that is incomplete, damaged, newer than this app, or not meant for it.
public struct BundleError: AppError, Equatable {
    public let message: String
    public let hint: String

    public init(_ message: String, hint: String) {
        self.message = message
        self.hint = hint
    }
}

/// A runtime that cannot load an artifact or run it.
public struct EngineError: AppError, Equatable {
    public let message: String
    public let hint: String

    public init(_ message: String, hint: String) {
        self.message = message
        self.hint = hint
    }
}

/// Text or tokens that the model cannot take: none at all, unknown ones, or more than fit.
public struct PromptError: AppError, Equatable {
    public let message: String
    public let hint: String

    public init(_ message: String, hint: String) {
        self.message = message
        self.hint = hint
    }
}

/// A step that ended early because it was told to; no fault of anybody's.
public struct StepStopped: AppError, Equatable {
    public let message = "the step was stopped"
    public let hint = ""

    public init() {}
}
