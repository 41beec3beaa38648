package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Tag
import org.llamaexport.fixtures.PythonStepModel
import org.llamaexport.fixtures.Turns
import org.llamaexport.fixtures.playWith

/** The seam carries a Core ML package too; the engines' own tests have the other two kinds. */
@Tag("bundles")
class RealBundlesTest {
    @Test
    fun `a Core ML package writes what it writes in Python`() {
        val turns = Turns.of("demo/coreml")
        assumeTrue(turns != null, "coremltools is not installed")
        PythonStepModel(assertNotNull(turns).bundle).use { model ->
            assertEquals(turns.vocabSize, model.vocabSize)
            assertEquals(turns.maxContext, model.maxContext)
            // A prompt and an edit in its middle; the rest takes a while in an evaluator.
            for (turn in turns.turns.take(2)) {
                assertContentEquals(turn.written, turn.playWith(model), "after ${turn.position}")
            }
        }
    }
}
