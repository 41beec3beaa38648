package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertEquals

class MemoryGateTest {
    private val need = MemoryNeed(1_000_000, 1000)

    private fun ask(tokens: Int, available: Long, reserved: Long = 0) =
        askMemory(need, tokens, available, reserved)

    @Test
    fun `what fits to the byte fits, and one byte less does not`() {
        assertEquals(MemoryAnswer.Fits(3_048_000, 3_048_000), ask(2048, 3_048_000))
        assertEquals(MemoryAnswer.Smaller(1792, 2_792_000, 3_047_999), ask(2048, 3_047_999))
        assertEquals(MemoryAnswer.Smaller(1792, 2_792_000, 3_048_000), ask(2048, 3_048_000, reserved = 1))
    }

    @Test
    fun `a context of fewer than 512 tokens is not proposed`() {
        assertEquals(MemoryAnswer.Smaller(512, 1_512_000, 1_512_000), ask(2048, 1_512_000))
        assertEquals(MemoryAnswer.TooLarge(3_048_000, 1_511_999), ask(2048, 1_511_999))
        assertEquals(MemoryAnswer.TooLarge(3_048_000, 5), ask(2048, 5, reserved = 100))
    }

    @Test
    fun `a bundle that does not say is unknown, and absurd numbers do not wrap around`() {
        assertEquals(MemoryAnswer.Unknown, askMemory(null, 2048, 1, 0))
        val absurd = MemoryNeed(Long.MAX_VALUE, Long.MAX_VALUE)
        assertEquals(MemoryAnswer.TooLarge(Long.MAX_VALUE, 9), askMemory(absurd, 2048, 9, 0))
    }
}
