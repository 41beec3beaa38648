package org.llamaexport.engine.onnx

/** Native things that belong to one owner: all are closed, the last made first, whatever fails. */
internal class Closing : AutoCloseable {
    private val made = ArrayList<AutoCloseable>()

    /** Close a thing with the others; it is returned. */
    fun <T : AutoCloseable> add(thing: T): T = thing.also { made.add(it) }

    override fun close() {
        var first: Throwable? = null
        while (made.isNotEmpty()) {
            try {
                made.removeAt(made.lastIndex).close()
            } catch (error: Exception) {
                first = first ?: error
            }
        }
        first?.let { throw it }
    }
}
