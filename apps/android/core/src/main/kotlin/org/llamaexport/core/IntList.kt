package org.llamaexport.core

/** Whole numbers in a row that grows, without an object for each. */
internal class IntList {
    /** The numbers, from index 0 to [size]; another array once it has grown. */
    var items = IntArray(FIRST_SIZE)
        private set

    /** How many there are. */
    var size: Int = 0
        private set

    fun add(value: Int) {
        if (size == items.size) items = items.copyOf(2 * size)
        items[size++] = value
    }

    fun addAll(more: IntArray) {
        val end = size + more.size
        if (end > items.size) items = items.copyOf(maxOf(end, 2 * size))
        more.copyInto(items, size)
        size = end
    }

    /** Forget them, and keep the memory. */
    fun clear() {
        size = 0
    }

    fun toArray(): IntArray = items.copyOf(size)

    private companion object {
        const val FIRST_SIZE = 64
    }
}
