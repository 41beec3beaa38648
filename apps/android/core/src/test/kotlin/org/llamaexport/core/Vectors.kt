package org.llamaexport.core

import java.io.File

/** The root of the repository. */
val REPOSITORY: File = File(System.getProperty("llama.repository") ?: error("llama.repository is not set"))

/** The folder of the vectors. */
val VECTORS: File = File(REPOSITORY, "apps/shared/vectors")

/** Load the tokenizer of the demo. */
fun demoTokenizer(): Tokenizer = loadTokenizer(File(REPOSITORY, "export/llama_export/demo"))

/** A file of apps/shared/vectors, which the Python side writes in some [format]. */
class Vectors(name: String, format: Int = 1) {
    private val top: JsonFields

    init {
        val text = File(VECTORS, name).readText()
        top = parseJson(text, name).fields(name)
        check(top.int("format_version") == format) { "$name has another format" }
    }

    fun fields(key: String): JsonFields = top.fields(key)

    fun ints(key: String): IntArray = top.ints(key)

    fun texts(key: String): List<String> = top.texts(key)

    /** Check each entry of a list; there is at least one, and a failure names it. */
    fun each(key: String, check: (JsonFields) -> Unit) {
        val entries = top.list(key)
        check(entries.isNotEmpty()) { "$key is empty" }
        for (entry in entries) {
            val fields = entry.fields(key)
            try {
                check(fields)
            } catch (failure: Throwable) {
                throw AssertionError("$key: ${fields.text("name")}: ${failure.message}", failure)
            }
        }
    }
}

fun JsonFields.ints(key: String): IntArray = list(key).map { (it as JsonNumber).int() }.toIntArray()

fun JsonFields.texts(key: String): List<String> = list(key).map { (it as JsonText).value }

/** Return the messages of a dialog. */
fun messagesOf(dialog: JsonFields): List<Message> = dialog.list("messages").map { entry ->
    val message = entry.fields("messages")
    Message(Role.entries.first { it.key == message.text("role") }, message.text("content"))
}
