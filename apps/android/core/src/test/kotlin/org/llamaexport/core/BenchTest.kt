package org.llamaexport.core

import java.nio.FloatBuffer
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

class BenchTest {
    private val vectors = Vectors("bench.json")

    /** A phone whose clock moves with the model: a millisecond a token, and more the first time. */
    private class Phone : BenchHost {
        var now = 0L
        private var hot = 0

        override fun clockNanos() = now

        override fun residentBytes(): Long = 1000 + now

        override fun peakResidentBytes(): Long? = null

        override fun thermal() = if (hot++ == 0) "none" else "light"
    }

    private class Timed(private val phone: Phone) : RowModel(64, 600) {
        private var isWarm = false

        override fun step(ids: IntArray, position: Int): FloatBuffer {
            phone.now += 1_000_000L * ids.size * if (isWarm) 1 else 3
            isWarm = true
            return super.step(ids, position)
        }
    }

    private val plan = BenchPlan(listOf(8, 300), listOf(16), 4, 2)

    private fun measured(onProgress: (Int, Int) -> Unit = { _, _ -> }): BenchResult? {
        val phone = Phone()
        val open = {
            phone.now += 2_000_000_000
            Timed(phone)
        }
        return measureBench(open, plan, phone, 60, onProgress = onProgress)
    }

    @Test
    fun `what is measured fits, as in Python`() = vectors.each("plans") {
        val plan = it.fields("plan")
        val found = BenchPlan.fitting(it.int("max_context"), it.bool("quick"))
        assertEquals(plan.ints("prompt_lengths").toList(), found.promptLengths)
        assertEquals(plan.ints("contexts").toList(), found.contexts)
        assertEquals(plan.int("decode_tokens"), found.decodeTokens)
        assertEquals(plan.int("repeat"), found.repeat)
    }

    @Test
    fun `samples are summarised as in Python`() = vectors.each("spreads") {
        val samples = it.list("samples").map { sample -> (sample as JsonNumber).double() }
        val spread = it.fields("spread")
        val expected = Spread(spread.double("median"), spread.double("least"), spread.double("most"))
        assertEquals(expected, Spread.of(samples))
    }

    @Test
    fun `the figures are those of the clock`() {
        val seen = ArrayList<Int>()
        val found = assertNotNull(measured { done, all ->
            seen += done
            assertEquals(9, all)
        })
        assertEquals((1..9).toList(), seen)
        assertEquals(2.0, found.loadS)
        assertEquals(8 * 0.003, found.firstCallS, 1e-12)
        assertEquals(listOf(8, 300), found.prefill.map { it.tokens })
        assertEquals(0.3, found.prefill[1].firstTokenS.median, 1e-12)
        assertEquals(1000.0, found.prefill[1].tokensPerS.most, 1e-6)
        assertEquals(1000.0, found.decode.single().tokensPerS.median, 1e-6)
        assertEquals(1000L, found.residentBeforeBytes)
        assertEquals(2_000_001_000L, found.residentBytes)
        assertEquals(listOf("none", "light"), listOf(found.thermalBefore, found.thermalAfter))
    }

    @Test
    fun `a stop ends it without a figure, and the model is closed`() {
        val stop = Stop()
        val model = RowModel(64, 600)
        val onProgress = { done: Int, _: Int -> if (done == 3) stop.request() }
        assertNull(measureBench({ model }, plan, Phone(), 60, stop = stop, onProgress = onProgress))
        assertTrue(model.isClosed)
    }

    @Test
    fun `what computes no numbers has no speed`() {
        val broken = object : RowModel(64, 600) {
            override fun logits(held: Int): FloatBuffer = super.logits(held).put(3, Float.NaN)
        }
        assertFailsWith<EngineError> { measureBench({ broken }, plan, Phone(), 60) }
        assertTrue(broken.isClosed)
        val error = assertFailsWith<BadInput> { BenchPlan.fitting(16) }
        assertContains(error.message.orEmpty(), "expected more than 16 positions to measure, found 16")
    }

    @Test
    fun `a pruned head's places are its tokens'`() {
        val read = ArrayList<Int>()
        val pruned = object : RowModel(64, 600) {
            override fun step(ids: IntArray, position: Int): FloatBuffer {
                read += ids.toList()
                super.step(ids, position)
                return FloatBuffer.wrap(floatArrayOf(0f, 1f))
            }
        }
        val short = BenchPlan(listOf(2), listOf(2), 2, 1)
        assertNotNull(measureBench({ pruned }, short, Phone(), 40, headTokens = intArrayOf(50, 51)))
        assertEquals(setOf(51), read.filter { it >= 40 }.toSet())
    }

    @Test
    fun `the report has the keys of the desktop's, and two more`() {
        val found = assertNotNull(measured())
        val bundle = BenchBundle("demo", "demo", "onnx", null, null, 5)
        val device = BenchDevice("a phone", 8, null)
        val report = found.report(plan, bundle, device, BenchThreads(2, "the app"), listOf("a note"))
        val expected = vectors.texts("keys")
        assertEquals(expected + listOf("device", "thermal.before", "thermal.after"), paths(report, ""))
        assertEquals(report, parseJson(report.write(), "report"))
        val fields = report.fields("report")
        assertEquals(JsonNull, fields.required("peak_resident_bytes"))
        assertEquals(8, fields.fields("machine").int("cores"))
        assertEquals(listOf(8, 300), fields.fields("settings").ints("prompt_lengths").toList())
        assertEquals("light", fields.fields("thermal").text("after"))
    }

    private fun paths(value: Json, path: String): List<String> = when {
        value is JsonObject -> value.entries.flatMap { (key, each) ->
            paths(each, if (path.isEmpty()) key else "$path.$key")
        }
        value is JsonArray && value.items.firstOrNull() is JsonObject -> paths(value.items[0], "$path[]")
        else -> listOf(path)
    }
}
