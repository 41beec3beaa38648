package org.llamaexport.engine.onnx

import java.io.File
import java.nio.FloatBuffer
import kotlin.test.Test
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import org.llamaexport.core.Bundle
import org.llamaexport.core.GOLDEN_NAME
import org.llamaexport.core.Golden
import org.llamaexport.core.GoldenVerdict
import org.llamaexport.core.KeptCache
import org.llamaexport.core.StepModel
import org.llamaexport.core.judge
import org.llamaexport.core.run
import org.llamaexport.fixtures.Turns

/** A real bundle proves itself on this runtime, another one than its exporter's; a faulty engine fails. */
class OnnxGoldenTest {
    private val demo = assertNotNull(Turns.of("demo/onnx"), "tools/apps/check_android.py makes it")
    private val bundle = Bundle.open(demo.bundle)
    private val golden = Golden.parse(File(demo.bundle, GOLDEN_NAME).readBytes())

    private fun open(): StepModel =
        OnnxStepModel.open(bundle.artifact, demo.vocabSize, demo.maxContext, threads = 1)

    private fun verdict(change: (StepModel) -> StepModel): GoldenVerdict = open().use { model ->
        golden.judge(assertNotNull(golden.run(KeptCache(change(model)))))
    }

    @Test
    fun `the right engine is green`() {
        val found = verdict { it }
        assertTrue(found.isGreen, "$found")
    }

    @Test
    fun `positions off by one are red`() = assertRed { model, ids, position ->
        model.step(ids, maxOf(position - 1, 0))
    }

    @Test
    fun `a wrong scale is red`() = assertRed { model, ids, position ->
        val logits = model.step(ids, position)
        FloatBuffer.wrap(FloatArray(model.vocabSize) { logits.get(it) * 1.25f })
    }

    @Test
    fun `a row that a rewind leaves is red`() {
        var held = 0
        assertRed { model, ids, position ->
            val from = if (position in 1 until held) position + 1 else position
            held = from + ids.size
            model.step(ids, from)
        }
    }

    private fun assertRed(step: (StepModel, IntArray, Int) -> FloatBuffer) {
        val found = verdict { model ->
            object : StepModel by model {
                override fun step(ids: IntArray, position: Int): FloatBuffer = step(model, ids, position)
            }
        }
        assertFalse(found.isGreen, "$found")
    }
}
