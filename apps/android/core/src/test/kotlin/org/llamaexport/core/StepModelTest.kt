package org.llamaexport.core

import java.nio.FloatBuffer
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertFailsWith

class StepModelTest {
    private val model = object : StepModel {
        override val vocabSize = 8
        override val maxContext = 4

        override fun step(ids: IntArray, position: Int): FloatBuffer = FloatBuffer.allocate(vocabSize)

        override fun close() = Unit
    }

    private fun refused(ids: IntArray, position: Int, held: Int): String =
        assertFailsWith<PromptError> { model.requireTokens(ids, position, held) }.message.orEmpty()

    @Test
    fun `tokens that fit are taken, after a rewind too`() {
        model.requireTokens(intArrayOf(0, 7), 2, 2)
        model.requireTokens(intArrayOf(0, 1, 2, 3), 0, 4)
    }

    @Test
    fun `what cannot follow is refused with its numbers`() {
        assertContains(refused(intArrayOf(), 0, 0), "no tokens")
        assertContains(refused(intArrayOf(1, 2, 3), 2, 2), "3 more tokens do not fit: the cache holds 2 of 4")
        assertContains(refused(intArrayOf(8), 0, 0), "token 8 is outside the vocabulary of 8")
        assertContains(refused(intArrayOf(-1), 0, 0), "token -1")
        assertContains(refused(intArrayOf(1), 3, 2), "position 3: the cache holds 2")
        assertContains(refused(intArrayOf(1), -1, 2), "position -1")
    }
}
