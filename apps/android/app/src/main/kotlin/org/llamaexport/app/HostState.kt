package org.llamaexport.app

import java.io.File
import org.llamaexport.core.AppError
import org.llamaexport.core.Manifest
import org.llamaexport.core.Sampling

/**
 * A model that is in memory, as the screens see it.
 *
 * @property folder folder of its bundle
 * @property contextTokens number of positions that there are
 * @property noChatReason why it has no turns, so that it only continues texts; null: it chats
 * @property takesSystem whether its dialogs may have a system message
 * @property sampling settings that its bundle asks for
 */
data class LoadedModel(
    val folder: File,
    val manifest: Manifest,
    val contextTokens: Int,
    val noChatReason: String?,
    val takesSystem: Boolean,
    val sampling: Sampling,
) {
    /** Name of its folder. */
    val name: String get() = folder.name
}

/** What the model's thread is at. */
sealed interface HostState {
    /** No model is in memory; [freed]: the system needed the memory. */
    data class Idle(val freed: String? = null) : HostState

    /** A model is being loaded; [checked] and [size] are bytes whose hashes are compared, or 0. */
    data class Loading(val folder: File, val checked: Long = 0, val size: Long = 0) : HostState {
        val name: String get() = folder.name
    }

    /** A model waits for a message. */
    data class Ready(val model: LoadedModel) : HostState

    /** It writes, or is measured. */
    data class Busy(val model: LoadedModel) : HostState

    /** A model could not be loaded. */
    data class Failed(val name: String, val error: AppError) : HostState

    /** The model that is in memory, or null. */
    val loaded: LoadedModel? get() = (this as? Ready)?.model ?: (this as? Busy)?.model

    /** Whether the model's thread can take another piece of work. */
    val isFree: Boolean get() = this !is Loading && this !is Busy
}
