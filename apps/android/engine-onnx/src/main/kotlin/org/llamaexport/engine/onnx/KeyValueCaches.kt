package org.llamaexport.engine.onnx

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.nio.LongBuffer
import org.llamaexport.core.directBuffer

/** First number of slots of a cache. At Llama 3.2 1B a slot of all layers is 64 kB. */
internal const val FIRST_SLOTS = 512

/**
 * The KV cache of a model: one tensor `[1, K, slots, D]` for each name, in memory of onnxruntime's.
 *
 * Each is what a layer reads and what it appends to. They double when they are full, one after the
 * other, so that the old and the new memory of one alone are there together.
 *
 * @param names names of the graph's inputs, such as `past_key_values.0.key`
 * @param heads number K of key and value heads
 * @param headDim number D of columns
 * @param maxContext largest number of slots
 */
internal class KeyValueCaches(
    private val environment: OrtEnvironment,
    private val names: List<String>,
    private val heads: Long,
    private val headDim: Long,
    private val maxContext: Int,
) : AutoCloseable {
    private class Cache(val slots: Int, private val owner: AutoCloseable, val tensor: OnnxTensor) {
        fun close() = owner.close()
    }

    private val pad: OrtSession = OrtSession.SessionOptions().use { options ->
        // An arena would keep the memory of what is closed.
        options.setCPUArenaAllocator(false)
        environment.createSession(PadGraph.bytes(), options)
    }
    private val caches = LinkedHashMap<String, Cache>()

    /** Number of slots that every cache has. */
    val slots: Int get() = if (caches.size < names.size) 0 else caches.values.minOf { it.slots }

    /** Return each cache's tensor by its name; valid until the next [reserve]. */
    fun tensors(): Map<String, OnnxTensor> = caches.mapValues { it.value.tensor }

    /**
     * Make room for so many positions, at least twice the room that there was; keep all rows.
     *
     * When memory ends on the way, what was there stays as it was, and a later call goes on.
     */
    fun reserve(positions: Int) {
        if (positions <= slots) return
        val wanted = minOf(maxOf(positions, 2 * slots, FIRST_SLOTS), maxContext)
        for (name in names) {
            val old = caches[name]
            if (old != null && old.slots >= wanted) continue
            caches[name] = if (old == null) empty(wanted) else padded(old.tensor, old.slots, wanted)
            old?.close()
        }
    }

    override fun close() {
        caches.values.forEach { it.close() }
        caches.clear()
        pad.close()
    }

    private fun empty(wanted: Int): Cache {
        val row = directBuffer(Math.toIntExact(heads * headDim), Float.SIZE_BYTES).asFloatBuffer()
        val shape = longArrayOf(1, heads, 1, headDim)
        return OnnxTensor.createTensor(environment, row, shape).use { padded(it, 1, wanted) }
    }

    private fun padded(tensor: OnnxTensor, slots: Int, wanted: Int): Cache {
        // Of the eight numbers, four for what stands before each axis and four for what comes after.
        val added = LongBuffer.wrap(longArrayOf(0, 0, 0, 0, 0, 0, (wanted - slots).toLong(), 0))
        OnnxTensor.createTensor(environment, added, longArrayOf(8)).use { pads ->
            val result = pad.run(mapOf(PadGraph.DATA to tensor, PadGraph.PADS to pads))
            return Cache(wanted, result, result.get(0) as OnnxTensor)
        }
    }
}
