package org.llamaexport.core

import java.io.File
import java.io.IOException
import java.security.SecureRandom

private const val ENDING = ".json"
private const val ID_BYTES = 8
private const val FREE_SPACE = "Delete models or files, and try again."

/** A file of the store. */
sealed interface KeptConversation {
    /** Name of its file, without the ending. */
    val id: String

    /** A conversation that can be opened. */
    data class Sound(val conversation: Conversation) : KeptConversation {
        override val id: String get() = conversation.id
    }

    /** A file that cannot be read; it is left as it is. */
    data class Damaged(override val id: String, val reason: String) : KeptConversation
}

/**
 * Conversations, a file each, written so that a kill leaves the old one or the new one.
 *
 * @property folder where they are; it need not exist
 */
class ConversationStore(private val folder: File) {
    /** Return an id that no conversation has. */
    fun newId(): String = ByteArray(ID_BYTES).also { SecureRandom().nextBytes(it) }.toHex()

    /**
     * Keep a conversation, in place of what was kept of it.
     *
     * @throws BadInput the storage cannot take it; what was kept is still there
     */
    fun save(conversation: Conversation) {
        val file = file(conversation.id)
        val aside = File(file.path + PART_ENDING)
        try {
            folder.mkdirs()
            aside.writeStored(conversation.write().toByteArray())
            if (!aside.renameTo(file)) throw IOException("${aside.name} cannot be renamed")
        } catch (error: IOException) {
            aside.delete()
            val message = "the conversation cannot be kept: ${error.message}"
            throw BadInput(message, FREE_SPACE, error, ErrorKind.STORAGE)
        }
    }

    /**
     * Read a conversation.
     *
     * @throws BadInput it is not there, or damaged
     */
    fun load(id: String): Conversation {
        val file = file(id)
        val text = try {
            file.readText()
        } catch (error: IOException) {
            val message = "the conversation $id cannot be read: ${error.message}"
            throw BadInput(message, "Choose another one.", error)
        }
        val found = Conversation.parse(text, file.name)
        if (found.id != id) throw BadInput("${file.name} is the conversation ${found.id.take(40)}", "")
        return found
    }

    /** Return all of them, the newest first and the damaged ones last. */
    fun list(): List<KeptConversation> {
        val names = folder.list().orEmpty().filter { it.endsWith(ENDING) }.sorted()
        val found = names.map { name ->
            val id = name.removeSuffix(ENDING)
            try {
                KeptConversation.Sound(load(id))
            } catch (error: AppError) {
                KeptConversation.Damaged(id, error.message.orEmpty())
            }
        }
        val (sound, damaged) = found.partition { it is KeptConversation.Sound }
        return sound.sortedByDescending { (it as KeptConversation.Sound).conversation.changedMs } + damaged
    }

    /** Give a conversation another title. @throws BadInput as [load] and [save] */
    fun rename(id: String, title: String) = save(load(id).copy(title = title))

    /** Delete a conversation, sound or damaged. */
    fun delete(id: String) {
        val file = file(id)
        file.delete()
        // A kill in the middle of a save leaves its words here.
        File(file.path + PART_ENDING).delete()
    }

    private fun file(id: String): File {
        requireFolderName(id)
        return File(folder, id + ENDING)
    }
}
