package org.llamaexport.engine.executorch

import java.io.File
import java.nio.FloatBuffer
import kotlin.test.BeforeTest
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
import org.llamaexport.core.AppError
import org.llamaexport.core.BundleError
import org.llamaexport.core.EngineError
import org.llamaexport.core.PromptError
import org.llamaexport.core.StepModel
import org.llamaexport.core.StepStopped
import org.llamaexport.core.directBuffer
import org.llamaexport.fixtures.PythonStepModel
import org.llamaexport.fixtures.Turns
import org.llamaexport.fixtures.assertGolden
import org.llamaexport.fixtures.playWith
import org.pytorch.executorch.EValue
import org.pytorch.executorch.ExecutorchRuntimeException
import org.pytorch.executorch.ExecutorchRuntimeException.ExecutorchInvalidArgumentException
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** Of the runtime there is a double alone; what it computes is the real program, in Python. */
@Tag("bundles")
class ExecutorchStepModelTest {
    @TempDir
    lateinit var folder: File

    private lateinit var file: File
    private lateinit var program: ModelProgram

    /** A model whose logits say what was read last, and where. */
    private class Echo : StepModel {
        override val vocabSize = 300
        override val maxContext = 1000

        override fun step(ids: IntArray, position: Int): FloatBuffer =
            FloatBuffer.wrap(FloatArray(vocabSize) { (ids.last() * 1000 + position + ids.size).toFloat() })

        override fun close() = Unit
    }

    @BeforeTest
    fun prepare() {
        file = File(folder, "model.pte")
        file.writeText("a double reads no file")
        program = ModelProgram(Echo())
        Module.loader = Module.Loader { _, loadMode, threads ->
            assertEquals(Module.LOAD_MODE_MMAP, loadMode)
            assertEquals(3, threads)
            program
        }
    }

    private fun open(vocabSize: Int = 300, maxContext: Int = 1000) =
        ExecutorchStepModel.open(file, vocabSize, maxContext, threads = 3)

    private fun failing(error: RuntimeException): AppError {
        program.before = { throw error }
        return open().use { model -> assertFailsWith<AppError> { model.step(intArrayOf(1), 0) } }
    }

    @Test
    fun `the demo writes what it writes in Python`() {
        val turns = Turns.of("demo/executorch")
        assumeTrue(turns != null, "executorch is not installed")
        program = ModelProgram(PythonStepModel(assertNotNull(turns).bundle))
        file = turns.artifact
        open(turns.vocabSize, turns.maxContext).use { model ->
            for (turn in turns.turns) {
                // Whole: the engine cuts it into pieces.
                val written = turn.playWith(model, piece = turn.ids.size)
                assertContentEquals(turn.written, written, "after ${turn.position}")
            }
        }
    }

    @Test
    fun `the golden data are met, and not by a faulty cache`() {
        val turns = Turns.of("demo/executorch")
        assumeTrue(turns != null, "executorch is not installed")
        file = assertNotNull(turns).artifact
        program = ModelProgram(PythonStepModel(turns.bundle))
        open(turns.vocabSize, turns.maxContext).use { assertGolden(turns.bundle, it) }
    }

    @Test
    fun `a prompt is run in pieces, each at its place`() = open().use { model ->
        val ids = IntArray(300) { it }
        val logits = model.step(ids, 0)
        assertEquals(listOf(128, 128, 44), program.pieces)
        assertEquals(299_300f, logits[0])
        assertEquals(300, logits.limit())
        assertEquals(7_010f, model.step(intArrayOf(7), 9)[299])
    }

    @Test
    fun `logits are a copy of what the runtime writes over`() = open().use { model ->
        val logits = model.step(intArrayOf(5), 0)
        program.spoil()
        assertEquals(5_001f, logits[0])
    }

    @Test
    fun `what cannot follow is refused before the runtime sees it`() = open().use { model ->
        assertFailsWith<PromptError> { model.step(intArrayOf(300), 0) }
        assertFailsWith<PromptError> { model.step(intArrayOf(1), 1) }
        assertFailsWith<PromptError> { model.step(IntArray(1001), 0) }
        assertEquals(emptyList(), program.pieces)
    }

    @Test
    fun `a prompt is stopped between two pieces, and the model goes on`() = open().use { model ->
        program.before = { if (program.pieces.size == 1) model.stop() }
        assertFailsWith<StepStopped> { model.step(IntArray(900) { 1 }, 0) }
        assertEquals(listOf(128, 128), program.pieces)
        program.before = {}
        assertEquals(2_257f, model.step(intArrayOf(2), 256)[0])
    }

    @Test
    fun `files that do not belong together are refused, and the program is let go`() {
        assertContains(
            assertFailsWith<BundleError> { open(vocabSize = 301) }.message.orEmpty(),
            "get_vocab_size is 300, expected 301",
        )
        assertTrue(program.isClosed)
        program = ModelProgram(Echo(), slots = 999)
        assertContains(assertFailsWith<BundleError> { open() }.message.orEmpty(), "room for 999 positions")
        file = File(folder, "gone.pte")
        assertFailsWith<EngineError> { open() }
    }

    /** Load a program of another form, of which nothing may escape as an exception of the runtime's. */
    private fun loading(execute: (String) -> Array<EValue>) {
        Module.loader = Module.Loader { _, _, _ ->
            object : Module.Program {
                override fun execute(method: String, vararg inputs: EValue) = execute(method)

                override fun close() = program.close()
            }
        }
    }

    private fun tensor(vararg shape: Long): EValue {
        val size = shape.fold(1L) { product, each -> product * each }.toInt()
        return EValue.from(Tensor.fromBlob(directBuffer(size, Float.SIZE_BYTES).asFloatBuffer(), shape))
    }

    @Test
    fun `a program that gives other values is refused in words`() {
        val sizes = mapOf("get_vocab_size" to 300L, "get_max_context_len" to 1000L)
        fun model(logits: Array<EValue>) = loading { name ->
            sizes[name]?.let { arrayOf(EValue.from(it)) } ?: logits
        }

        fun refused(): String = open().use {
            assertFailsWith<BundleError> { it.step(intArrayOf(1), 0) }
        }.message.orEmpty()
        val longs = directBuffer(300, Long.SIZE_BYTES).asLongBuffer()
        val cases = listOf(
            arrayOf<EValue>() to "forward gives 0 values",
            arrayOf(tensor(300), tensor(300)) to "forward gives 2 values",
            arrayOf(EValue.from(5L)) to "Expected EValue type Tensor",
            arrayOf(tensor(2, 300)) to "found 2 x 300",
            arrayOf(tensor()) to "expected one row of 300 logits",
            arrayOf(EValue.from(Tensor.fromBlob(longs, longArrayOf(1, 300)))) to "cannot copy data",
        )
        for ((logits, words) in cases) {
            model(logits)
            assertContains(refused(), words)
        }
        loading { arrayOf(tensor(1)) }
        assertContains(assertFailsWith<BundleError> { open() }.message.orEmpty(), "Expected EValue type Int")
        loading { arrayOf() }
        assertContains(assertFailsWith<BundleError> { open() }.message.orEmpty(), "gives 0 values")
    }

    @Test
    fun `a closed model says so, and closing twice does nothing`() {
        val model = open()
        model.close()
        model.close()
        assertTrue(program.isClosed)
        assertFailsWith<IllegalStateException> { model.step(intArrayOf(1), 0) }
    }

    @Test
    fun `each error of the runtime says what to do`() {
        fun error(code: Int) = failing(ExecutorchRuntimeException(code, "details"))
        assertContains(error(0x14).hint, "export it again with the version")
        assertContains(assertIs<BundleError>(error(0x23)).hint, "export it again with the version")
        assertContains(error(0x30).hint, "export it again with the version")
        assertContains(error(0x21).hint, "smaller model")
        assertContains(assertIs<BundleError>(error(0x22)).hint, "get the bundle again")
        assertContains(error(0x99).message.orEmpty(), "the runtime failed (0x99)")
        assertContains(error(0x14).message.orEmpty(), "details")
        val invalid = failing(ExecutorchInvalidArgumentException("shape"))
        assertContains(invalid.message.orEmpty(), "takes other inputs, or no more of them (0x12)")
    }
}
