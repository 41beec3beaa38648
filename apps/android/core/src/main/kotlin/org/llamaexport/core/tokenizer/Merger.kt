package org.llamaexport.core.tokenizer

/**
 * Which two neighbouring tokens become one, and in which order.
 *
 * @param expected number of merges that will be added
 */
internal class MergeTable(expected: Int) {
    private val mask = tableSize(expected) - 1
    private val keys = LongArray(mask + 1) { EMPTY }
    private val ranks = IntArray(mask + 1)
    private val results = IntArray(mask + 1)

    /** Add a merge; a pair that is given again counts as it was given last. */
    fun put(left: Int, right: Int, rank: Int, result: Int) {
        val slot = slotOf(key(left, right))
        keys[slot] = key(left, right)
        ranks[slot] = rank
        results[slot] = result
    }

    /** Return the place of a pair for [rankAt] and [resultAt], or -1 where it becomes nothing. */
    fun find(left: Int, right: Int): Int {
        val slot = slotOf(key(left, right))
        return if (keys[slot] == EMPTY) -1 else slot
    }

    /** Return when it is merged; the lowest is first. */
    fun rankAt(place: Int): Int = ranks[place]

    /** Return the token that it becomes. */
    fun resultAt(place: Int): Int = results[place]

    private fun key(left: Int, right: Int): Long = left.toLong() shl Int.SIZE_BITS or right.toLong()

    private fun slotOf(key: Long): Int {
        var slot = mixed(key) and mask
        while (keys[slot] != EMPTY && keys[slot] != key) slot = (slot + 1) and mask
        return slot
    }

    private fun mixed(key: Long): Int {
        val product = key * 0x61C8864680B583EBL
        return (product xor (product ushr Int.SIZE_BITS)).toInt()
    }

    private companion object {
        const val EMPTY = -1L
    }
}

/** Return a power of two that leaves half of a table of that size empty. */
internal fun tableSize(entries: Int): Int {
    var size = 16
    while (size < 2 * entries) size *= 2
    return size
}

/**
 * Merges the tokens of a word, the lowest rank first and the leftmost of equal ones.
 *
 * A heap holds what may be merged, so a word of n tokens costs n log n. One thread uses it at a
 * time; it keeps its arrays from word to word.
 */
internal class Merger(private val table: MergeTable) {
    private var next = IntArray(SMALL)
    private var previous = IntArray(SMALL)
    private var places = IntArray(SMALL)
    private val heap = LongHeap()

    /**
     * Merge what can be merged, in place.
     *
     * @param tokens ids `[>= count]`
     * @return how many are left, from index 0 on
     */
    fun merge(tokens: IntArray, count: Int): Int {
        if (count < 2) return count
        if (next.size < count) grow(count)
        for (at in 0 until count) {
            next[at] = at + 1
            previous[at] = at - 1
        }
        for (at in 0 until count) look(tokens, at, count)
        while (true) {
            val entry = heap.pop()
            if (entry < 0) break
            val at = entry.toInt()
            val place = places[at]
            // Another merge took a part of it away, or gave it another neighbour.
            if (place < 0 || table.rankAt(place) != (entry ushr Int.SIZE_BITS).toInt()) continue
            val taken = next[at]
            tokens[at] = table.resultAt(place)
            places[taken] = -1
            next[at] = next[taken]
            if (next[at] < count) previous[next[at]] = at
            look(tokens, at, count)
            if (previous[at] >= 0) look(tokens, previous[at], count)
        }
        return closeGaps(tokens, count)
    }

    private fun look(tokens: IntArray, at: Int, count: Int) {
        val place = if (next[at] < count) table.find(tokens[at], tokens[next[at]]) else -1
        places[at] = place
        if (place >= 0) heap.push(table.rankAt(place).toLong() shl Int.SIZE_BITS or at.toLong())
    }

    private fun closeGaps(tokens: IntArray, count: Int): Int {
        var kept = 0
        var at = 0
        while (at < count) {
            tokens[kept++] = tokens[at]
            at = next[at]
        }
        return kept
    }

    private fun grow(count: Int) {
        val size = maxOf(count, 2 * next.size)
        next = IntArray(size)
        previous = IntArray(size)
        places = IntArray(size)
    }

    private companion object {
        const val SMALL = 64
    }
}

/** A heap of numbers that are not negative, the smallest on top. */
private class LongHeap {
    private var items = LongArray(64)
    private var size = 0

    fun push(item: Long) {
        if (size == items.size) items = items.copyOf(2 * size)
        var at = size++
        while (at > 0) {
            val parent = (at - 1) / 2
            if (items[parent] <= item) break
            items[at] = items[parent]
            at = parent
        }
        items[at] = item
    }

    /** Return the smallest and remove it, or -1 where there is none. */
    fun pop(): Long {
        if (size == 0) return -1
        val smallest = items[0]
        val item = items[--size]
        var at = 0
        while (true) {
            var child = 2 * at + 1
            if (child >= size) break
            if (child + 1 < size && items[child + 1] < items[child]) child += 1
            if (items[child] >= item) break
            items[at] = items[child]
            at = child
        }
        items[at] = item
        return smallest
    }
}
