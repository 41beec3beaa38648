package org.llamaexport.core

/**
 * An error that a person can act on.
 *
 * @param message what is wrong: what, where, what was expected and what was found
 * @property hint what to do about it; empty where nothing can be done
 */
open class AppError(message: String, val hint: String, cause: Throwable? = null) :
    Exception(message, cause)

/** What was given is not what it should be: JSON of others, a number in a setting, a file's name. */
class BadInput(message: String, hint: String, cause: Throwable? = null) : AppError(message, hint, cause)

/** A bundle that is incomplete, damaged, newer than this app, or not meant for it. */
class BundleError(message: String, hint: String, cause: Throwable? = null) : AppError(message, hint, cause)

/** A runtime that cannot load an artifact or run it. */
class EngineError(message: String, hint: String, cause: Throwable? = null) : AppError(message, hint, cause)

/** Text or tokens that the model cannot take: none at all, unknown ones, or more than fit. */
class PromptError(message: String, hint: String, cause: Throwable? = null) : AppError(message, hint, cause)

/** A step that ended early because it was told to; no fault of anybody's. */
class StepStopped(cause: Throwable? = null) : AppError("the step was stopped", "", cause)
