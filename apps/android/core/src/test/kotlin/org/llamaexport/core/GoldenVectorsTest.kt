package org.llamaexport.core

import java.nio.FloatBuffer
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull

/** Python's golden data, and its judgement of phones' reports, right ones and wrong ones. */
class GoldenVectorsTest {
    private val vectors = Vectors("golden.json")
    private val golden = Golden.parse(vectors.fields("golden").json.write().toByteArray())

    /** The model that the vectors' page describes. */
    private class Arithmetic : StepModel {
        override val vocabSize = 64
        override val maxContext = 64
        private val rows = LongArray(maxContext)
        private var held = 0

        override fun step(ids: IntArray, position: Int): FloatBuffer {
            requireTokens(ids, position, held)
            for ((offset, id) in ids.withIndex()) {
                val at = position + offset
                rows[at] = (id + 1L) * (at + 7)
            }
            held = position + ids.size
            var state = 0L
            for (at in 0 until held) state = (31 * state + rows[at]) % 65521
            return FloatBuffer.wrap(
                FloatArray(vocabSize) { (state * (it + 1) * 40503 % 65521 / 16) / 1024f },
            )
        }

        override fun close() = Unit
    }

    private fun numbers(fields: JsonFields, key: String): DoubleArray =
        fields.list(key).map { number(it) }.toDoubleArray()

    private fun number(value: Json): Double = if (value is JsonNumber) value.double() else Double.NaN

    private fun answer(fields: JsonFields): GoldenAnswer {
        val pairs = fields.list("top").map { (it as JsonArray).items }
        return GoldenAnswer(
            call = GoldenCall(GoldenText.PROMPT, 0, 0),
            places = pairs.map { (it[0] as JsonNumber).int() }.toIntArray(),
            logprobs = pairs.map { number(it[1]) }.toDoubleArray(),
            restLogprob = fields.required("rest_logprob").let { if (it == JsonNull) null else number(it) },
        )
    }

    /** What a report says, as the desktop reads it; it has no names of texts. */
    private fun measured(report: JsonFields): List<Measured> =
        report.list("positions").zip(golden.answers) { raw, answer ->
            val fields = raw.fields("positions")
            val rest = number(fields.required("rest_logprob"))
            Measured(
                call = answer.call.copy(at = fields.int("at")),
                logprobs = numbers(fields, "logprobs"),
                restLogprob = if (answer.restLogprob == null) null else rest,
                best = if ("best" in fields) fields.int("best") else null,
            )
        }

    @Test
    fun `logits are measured as Python measures them`() = vectors.each("logits") {
        val logits = numbers(it, "logits").map(Double::toFloat).toFloatArray()
        val found = measure(answer(it), logits)
        val expected = numbers(it, "logprobs")
        for (at in expected.indices) assertEquals(expected[at], found.logprobs[at], 1.01e-5)
        assertEquals(number(it.required("rest_logprob")), found.restLogprob ?: Double.NaN, 1.01e-5)
        assertEquals(it.int("best"), found.best)
    }

    @Test
    fun `every report is judged as Python judges it`() = vectors.each("reports") {
        val rows = it.fields("rows")
        if ("golden_kl_mean" !in rows) return@each // calls are missing: an app's own never are
        val verdict = golden.judge(measured(it.fields("report")))
        assertEquals(it.bool("passed"), verdict.isGreen)
        val first = if ("first" in it) it.int("first") else null
        val named = first?.let { at -> "${golden.answers[at].call.named}, call ${at + 1}" }
        assertEquals(named, verdict.firstBeyond)
        fun value(key: String) = number(rows.fields(key).required("value"))
        fun finite(value: Double) = if (value.isInfinite()) Double.NaN else value
        assertEquals(value("golden_kl_mean"), finite(verdict.klMean), 1e-6)
        assertEquals(value("golden_kl_worst"), finite(verdict.klWorst), 1e-6)
        assertEquals(value("golden_top1"), verdict.swapped.toDouble())
        assertEquals(value("golden_sums"), verdict.unsound.toDouble())
    }

    @Test
    fun `the calls made here give Python's report`() {
        val found = assertNotNull(golden.run(KeptCache(Arithmetic())))
        var seen = 0
        vectors.each("reports") {
            if (it.text("name") != "right") return@each
            seen += 1
            val expected = measured(it.fields("report"))
            assertEquals(expected.map { each -> each.call }, found.map { each -> each.call })
            for ((one, other) in expected.zip(found)) {
                assertEquals(one.best, other.best)
                for (at in one.logprobs.indices) assertEquals(one.logprobs[at], other.logprobs[at], 1.01e-5)
            }
        }
        assertEquals(1, seen)
        assertNull(golden.judge(found).firstBeyond)
    }
}
