package org.llamaexport.core

import java.util.Random
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class OverflowTest {
    private fun lengthOf(turns: List<Int>, system: Int) = DialogLength { dropped, hasSystem ->
        turns.drop(dropped).sum() + if (hasSystem) system else 0
    }

    @Test
    fun `as few turns go as can be, whatever their lengths`() {
        val random = Random(2)
        var found = 0
        repeat(2_000) {
            val turns = List(1 + 2 * random.nextInt(8)) { 1 + random.nextInt(60) }
            val maxTokens = 1 + random.nextInt(100)
            val context = 32 + random.nextInt(200)
            val length = lengthOf(turns, random.nextInt(20))
            val overflow = findOverflow(length, turns.size - 1, maxTokens, context) ?: return@repeat
            val least = minOf(maxTokens, 16)
            val room = maxOf(minOf(maxTokens, context / 4), least)
            val expected = (2 until turns.size step 2).firstOrNull {
                length.count(it, true) + (if (it == turns.size - 1) least else room) <= context
            }
            assertEquals(expected ?: (turns.size - 1), overflow.droppedTurns)
            assertEquals(expected?.let { length.count(it, true) }, overflow.keptTokens)
            if (expected != null) found += 1
        }
        assertTrue(found > 300, "only $found could be helped")
    }

    @Test
    fun `a conversation of ten thousand turns is counted a few times`() {
        val turns = List(10_001) { 30 }
        var counted = 0
        val length = lengthOf(turns, 0)
        val overflow = findOverflow({ dropped, hasSystem ->
            counted += 1
            length.count(dropped, hasSystem)
        }, turns.size - 1, 512, 8192)
        // 512 of 8192 are for the answer, and turns go in pairs of 60.
        assertEquals(7650, overflow?.keptTokens)
        assertTrue(counted < 20, "$counted times")
    }
}
