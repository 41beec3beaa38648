package org.llamaexport.engine.onnx

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import java.nio.FloatBuffer
import java.nio.LongBuffer
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class KeyValueCachesTest {
    private val environment = OrtEnvironment.getEnvironment()
    private val names = listOf("past_key_values.0.key", "past_key_values.0.value")

    private fun caches(maxContext: Int) = KeyValueCaches(environment, names, 2, 3, maxContext)

    private fun rows(tensor: OnnxTensor): FloatArray = FloatArray(tensor.floatBuffer.remaining()).also {
        tensor.floatBuffer.get(it)
    }

    @Test
    fun `caches double, up to the context, and say their room`() {
        caches(maxContext = 1500).use { caches ->
            assertEquals(0, caches.slots)
            val seen = listOf(1, 512, 513, 1025, 1500).map { caches.reserve(it); caches.slots }
            assertEquals(listOf(512, 512, 1024, 1500, 1500), seen)
            val shapes = caches.tensors().mapValues { it.value.info.shape.toList() }
            assertEquals(names.associateWith { listOf(1L, 2L, 1500L, 3L) }, shapes)
        }
        caches(maxContext = 20).use { caches ->
            caches.reserve(3)
            assertEquals(20, caches.slots)
        }
    }

    @Test
    fun `what a cache holds stays where it was`() {
        caches(maxContext = 2048).use { caches ->
            caches.reserve(512)
            // Written in place, as the model does it.
            val before = caches.tensors().getValue(names[0])
            assertContentEquals(FloatArray(2 * 512 * 3), rows(before))
            fill(before, 2 * 512 * 3)
            caches.reserve(513)
            val after = rows(caches.tensors().getValue(names[0]))
            for (head in 0..1) {
                val kept = after.copyOfRange(head * 1024 * 3, head * 1024 * 3 + 512 * 3)
                assertContentEquals(FloatArray(512 * 3) { (head * 512 * 3 + it).toFloat() }, kept)
                val added = after.copyOfRange(head * 1024 * 3 + 512 * 3, (head + 1) * 1024 * 3)
                assertContentEquals(FloatArray(512 * 3), added)
            }
        }
    }

    @Test
    fun `when memory ends the caches stay as they were`() {
        KeyValueCaches(environment, names, 2, 1000, Int.MAX_VALUE).use { caches ->
            caches.reserve(512)
            val error = assertFailsWith<OrtException> { caches.reserve(Int.MAX_VALUE) }
            assertContains(describe("make room", error).hint, "smaller model")
            assertEquals(512, caches.slots)
            assertEquals(2 * 512 * 1000, caches.tensors().getValue(names[0]).floatBuffer.remaining())
        }
    }

    /** Write 0, 1, 2 and so on into a tensor of onnxruntime's, through a graph that copies. */
    private fun fill(tensor: OnnxTensor, size: Int) {
        val numbers = FloatBuffer.wrap(FloatArray(size) { it.toFloat() })
        environment.createSession(PadGraph.bytes()).use { copying ->
            OnnxTensor.createTensor(environment, numbers, tensor.info.shape).use { data ->
                val none = LongBuffer.wrap(LongArray(8))
                OnnxTensor.createTensor(environment, none, longArrayOf(8)).use { pads ->
                    val inputs = mapOf(PadGraph.DATA to data, PadGraph.PADS to pads)
                    copying.run(inputs, mapOf(PadGraph.PADDED to tensor)).close()
                }
            }
        }
    }
}
