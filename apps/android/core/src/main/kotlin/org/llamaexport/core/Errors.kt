package org.llamaexport.core

/** What went wrong, so that an app can say it in the user's language; the message has the details. */
enum class ErrorKind {
    /** Whatever has no kind of its own. */
    OTHER,

    /** There is too little memory. */
    NO_MEMORY,

    /** The storage is full, or refuses to be written. */
    STORAGE,

    /** No server was reached, or it fell silent. */
    NETWORK,

    /** A server answered something else than what was asked for. */
    SERVER,

    /** A server gives it to those with a token alone. */
    TOKEN_WANTED,

    /** What was typed is no address of a model. */
    ADDRESS,

    /** It holds no manifest. */
    NO_BUNDLE,

    /** Files of a bundle are missing or cut off. */
    INCOMPLETE,

    /** Files of a bundle have other bytes than its manifest says. */
    WRONG_BYTES,

    /** A bundle or its tokenizer cannot be read. */
    DAMAGED,

    /** A bundle is of a newer format than this app. */
    NEWER_FORMAT,

    /** A model of that name is there. */
    NAME_TAKEN,

    /** A text is longer than the context. */
    CONTEXT_FULL,

    /** A setting is out of its range. */
    SETTING,

    /** A runtime is not the one that a model was exported for. */
    RUNTIME_VERSION,

    /** A runtime cannot load a model, or run it. */
    ENGINE,
}

/**
 * An error that a person can act on.
 *
 * @param message what is wrong: what, where, what was expected and what was found
 * @property hint what to do about it; empty where nothing can be done
 * @property kind what went wrong, in a word
 */
open class AppError(
    message: String,
    val hint: String,
    cause: Throwable? = null,
    val kind: ErrorKind = ErrorKind.OTHER,
) : Exception(message, cause)

/** What was given is not what it should be: JSON of others, a number in a setting, a file's name. */
class BadInput(
    message: String,
    hint: String,
    cause: Throwable? = null,
    kind: ErrorKind = ErrorKind.OTHER,
) : AppError(message, hint, cause, kind)

/** A bundle that is incomplete, damaged, newer than this app, or not meant for it. */
class BundleError(
    message: String,
    hint: String,
    cause: Throwable? = null,
    kind: ErrorKind = ErrorKind.DAMAGED,
) : AppError(message, hint, cause, kind)

/** A runtime that cannot load an artifact or run it. */
class EngineError(
    message: String,
    hint: String,
    cause: Throwable? = null,
    kind: ErrorKind = ErrorKind.ENGINE,
) : AppError(message, hint, cause, kind)

/** Text or tokens that the model cannot take: none at all, unknown ones, or more than fit. */
class PromptError(
    message: String,
    hint: String,
    cause: Throwable? = null,
    kind: ErrorKind = ErrorKind.OTHER,
) : AppError(message, hint, cause, kind)

/** A step that ended early because it was told to; no fault of anybody's. */
class StepStopped(cause: Throwable? = null) : AppError("the step was stopped", "", cause)
