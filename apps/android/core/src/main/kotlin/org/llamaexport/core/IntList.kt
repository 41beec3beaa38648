package org.llamaexport.core

/** Whole numbers in a row that grows, without an object for each. */
internal class IntList(capacity: Int = 64) {
    private var values = IntArray(capacity)

    /** How many there are. */
    var size: Int = 0
        private set

    fun add(value: Int) {
        if (size == values.size) values = values.copyOf(maxOf(1, 2 * size))
        values[size++] = value
    }

    fun addAll(more: IntArray) {
        val end = size + more.size
        if (end > values.size) values = values.copyOf(maxOf(end, 2 * size))
        more.copyInto(values, size)
        size = end
    }

    fun toArray(): IntArray = values.copyOf(size)
}
