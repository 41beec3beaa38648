package org.llamaexport.core

import java.io.File
import kotlin.math.exp
import kotlin.math.ln
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

private const val LENGTH = 96
private const val PREFILLED = 32
private const val STEPS = 48
private const val BACK = 48
private const val REWOUND = 13
private const val CUT = 47

class GoldenTest {
    private val prompt = IntArray(LENGTH) { (mix(it, 77) ushr 8) % 64 }
    private val rewound = IntArray(REWOUND) { (mix(it, 78) ushr 8) % 64 }
    private val calls = buildList {
        add(GoldenCall(GoldenText.PROMPT, 0, PREFILLED - 1))
        for (at in PREFILLED until PREFILLED + STEPS) add(GoldenCall(GoldenText.PROMPT, at, at))
        for (at in BACK until BACK + REWOUND) add(GoldenCall(GoldenText.REWIND, at, at))
        add(GoldenCall(GoldenText.PROMPT, 0, CUT - 1))
        add(GoldenCall(GoldenText.PROMPT, CUT, LENGTH - 1))
    }

    /** A golden.json as the exporter writes it, of the right model. */
    private fun document(top: Int = 32, klMean: Double = 2e-3, klWorst: Double = 1e-2): JsonObject {
        val model = TinyLlama()
        val answers = calls.map { call ->
            val text = when (call.text) {
                GoldenText.PROMPT -> prompt
                GoldenText.REWIND -> prompt.copyOf(BACK) + rewound
            }
            val buffer = model.step(text.copyOfRange(call.first, call.at + 1), call.first)
            val logits = List(64) { buffer.get(it).toDouble() }
            val total = ln(logits.sumOf(::exp))
            val order = logits.indices.sortedBy { -logits[it] }
            val others = order.drop(top).sumOf { exp(logits[it] - total) }
            JsonObject(
                "text" to JsonText(call.text.key),
                "from" to JsonNumber(call.first),
                "at" to JsonNumber(call.at),
                "top" to JsonArray(order.take(top).map {
                    JsonArray(listOf(JsonNumber(it), JsonNumber(Math.rint((logits[it] - total) * 1e5) / 1e5)))
                }),
                "rest_logprob" to if (top == 64) JsonNull else JsonNumber(ln(others)),
            )
        }
        return JsonObject(
            "format_version" to JsonNumber(1),
            "target" to JsonText("onnx"),
            "runtime" to JsonText("arithmetic 1"),
            "prompt_ids" to JsonArray(prompt.map(::JsonNumber)),
            "rewind" to JsonObject("to" to JsonNumber(BACK), "ids" to JsonArray(rewound.map(::JsonNumber))),
            "limits" to JsonObject(
                "kl_mean" to JsonNumber(klMean),
                "kl_worst" to JsonNumber(klWorst),
                "margin" to JsonNumber(0.28),
            ),
            "positions" to JsonArray(answers),
        )
    }

    private fun parse(document: JsonObject) = Golden.parse(document.write().toByteArray())

    private fun verdict(model: StepModel, golden: Golden = parse(document())): GoldenVerdict =
        golden.judge(assertNotNull(golden.run(KeptCache(model))))

    @Test
    fun `the right model is green, to the digits that are written`() {
        for (top in listOf(1, 32, 63, 64)) {
            val found = verdict(TinyLlama(), parse(document(top)))
            assertTrue(found.isGreen, "$top: $found")
            assertTrue(found.klWorst < 1e-8, "$top: $found")
            assertNull(found.firstBeyond)
        }
    }

    @Test
    fun `another processor's arithmetic is green`() {
        assertTrue(verdict(TinyLlama(noise = 0.1f)).isGreen)
    }

    @Test
    fun `far more than another processor's arithmetic is red`() {
        assertFalse(verdict(TinyLlama(noise = 1.5f)).isGreen)
    }

    @Test
    fun `every fault of an engine is red and says where`() {
        val first = mapOf(
            Fault.POSITION_OFF_BY_ONE to "position 32 of the prompt text, call 2",
            Fault.STALE_ROW to "call",
            Fault.SWAPPED_HEADS to "call",
            Fault.WRONG_SCALE to "call",
            Fault.NOT_FINITE to "position 71 of the prompt text, call 41",
        )
        assertEquals(Fault.entries.toSet(), first.keys)
        for ((fault, where) in first) {
            val found = verdict(TinyLlama(fault))
            assertFalse(found.isGreen, "$fault: $found")
            assertContains(assertNotNull(found.firstBeyond, "$fault: $found"), where)
            val green = found.json()["green"]
            assertEquals(JsonBool(false), green)
        }
    }

    @Test
    fun `a likeliest token that changed is red where it was clear`() {
        val swaps = object : StepModel by TinyLlama() {
            private val model = TinyLlama()

            override fun step(ids: IntArray, position: Int) = model.step(ids, position).also {
                val order = (0 until 64).sortedBy { id -> -it.get(id) }
                val top = it.get(order[0])
                it.put(order[0], it.get(order[1]))
                it.put(order[1], top)
            }
        }
        val lenient = parse(document(klMean = 9.0, klWorst = 9.0))
        val found = verdict(swaps, lenient)
        assertTrue(found.swapped in 1 until calls.size, "$found")
        assertFalse(found.isGreen)
        assertContains(found.firstBeyond.orEmpty(), "call")
    }

    @Test
    fun `a stop ends it between calls, and the cache goes on`() {
        val cache = KeptCache(TinyLlama())
        cache.read(intArrayOf(1, 2, 3))
        val stop = Stop()
        val seen = ArrayList<Int>()
        assertNull(parse(document()).run(cache, stop = stop) { done, all ->
            seen += done
            assertEquals(calls.size, all)
            if (done == 5) stop.request()
        })
        assertEquals(listOf(0, 1, 2, 3, 4, 5), seen)
        assertEquals(PREFILLED + 4, cache.position)
    }

    @Test
    fun `the report is what the desktop reads`() {
        val golden = parse(document())
        val measured = assertNotNull(golden.run(KeptCache(TinyLlama(Fault.NOT_FINITE))))
        val device = mapOf("model" to "a phone")
        val text = golden.report(measured, device, "arithmetic 2", "ab".repeat(32)).write()
        val report = parseJson(text, "report").fields("report")
        assertEquals(
            listOf("format_version", "device", "runtime", "manifest_sha256", "verdict", "positions"),
            report.json.entries.keys.toList(),
        )
        assertEquals("a phone", report.fields("device").text("model"))
        val positions = report.list("positions").map { it.fields("position") }
        assertEquals(calls.map { it.at }, positions.map { it.int("at") })
        val sound = positions[0]
        assertEquals(32, sound.list("logprobs").size)
        assertEquals(golden.answers[0].places[0], sound.int("best"))
        val broken = positions[40]
        assertTrue(broken.list("logprobs").all { it == JsonNull })
        assertEquals(JsonNull, broken.required("rest_logprob"))
        assertEquals(JsonNull, report.fields("verdict").required("kl_worst"))
        assertTrue(report.fields("verdict").int("unsound") > 0)
    }

    @Test
    fun `golden data of another form are refused with their place`() {
        fun refused(change: (MutableMap<String, Json>) -> Unit): String {
            val keys = LinkedHashMap(document().entries)
            change(keys)
            return assertFailsWith<BundleError> { parse(JsonObject(keys)) }.message.orEmpty()
        }
        fun answer(vararg changes: Pair<String, Json>): (MutableMap<String, Json>) -> Unit = { keys ->
            val answers = (keys.getValue("positions") as JsonArray).items
            val changed = JsonObject((answers[3] as JsonObject).entries + changes)
            keys["positions"] = JsonArray(answers.take(3) + changed + answers.drop(4))
        }
        fun top(text: String) = answer("top" to parseJson(text, "top"))

        fun key(name: String, text: String): (MutableMap<String, Json>) -> Unit =
            { keys -> keys[name] = parseJson(text, name) }

        val odd = """{"kl_mean": -1, "kl_worst": 1, "margin": 1}"""
        val expected = listOf(
            key("format_version", "2") to "format_version: expected 1, found 2",
            key("positions", "[]") to "positions: expected 1 to 1024, found 0",
            key("prompt_ids", "[-1]") to "prompt_ids: expected 1 to 4096 token ids",
            key("rewind", """{"to": 97, "ids": [1]}""") to "to: expected at most 96, found 97",
            key("limits", odd) to "kl_mean: expected at least 0",
            answer("text" to JsonText("other")) to "positions[3]: text: expected prompt or rewind",
            answer("from" to JsonNumber(90), "at" to JsonNumber(91)) to "were read, found 90 to 91",
            answer("at" to JsonNumber(96)) to "positions that were read, found 34 to 96",
            answer("at" to JsonNumber(1)) to "positions that were read, found 34 to 1",
            answer("rest_logprob" to JsonNumber(1)) to "rest_logprob: expected a logarithm",
            answer("rest_logprob" to JsonNumber(0.0)) to "top: expected probabilities that add up to 1",
            top("[[1, -99999]]") to "positions[3]: top: expected probabilities that add up to 1",
        )
        for ((change, words) in expected) assertContains(refused(change), words)
        assertContains(refused { it.remove("limits") }, "the key limits is missing")
        for (bad in listOf("[[1]]", "[[1, -1, 2]]", "[1]", "[[-1, -1]]", "[[1.5, -1]]", """[["1", -1]]""")) {
            assertContains(refused(top(bad)), "top: expected pairs of a place and a logarithm")
        }
        assertContains(refused(top("[[1, -1], [1, -2]]")), "places that differ")
        assertContains(refused(top("[]")), "1 to 64 pairs, found 0")
        assertFailsWith<BundleError> { Golden.parse("{".toByteArray()) }
    }

    @Test
    fun `golden data are read from a bundle when they are what it lists`(@TempDir folder: File) {
        val content = document().write().toByteArray()
        val bundle = Bundle.open(writeBundle(File(folder, "b"), testFiles() + (GOLDEN_NAME to content)))
        assertEquals(calls.size, assertNotNull(bundle.readGolden()).answers.size)
        assertNull(Bundle.open(writeBundle(File(folder, "none"))).readGolden())
        fun refused() = assertFailsWith<BundleError> { bundle.readGolden() }.message.orEmpty()
        File(bundle.folder, GOLDEN_NAME).writeBytes(document(klMean = 3e-3).write().toByteArray())
        assertContains(refused(), "golden.json has other bytes than the manifest says")
        File(bundle.folder, GOLDEN_NAME).delete()
        assertContains(refused(), "golden.json is missing")
        val long = testFiles() + (GOLDEN_NAME to ByteArray(MOST_GOLDEN_BYTES + 1))
        val other = Bundle.open(writeBundle(File(folder, "long"), long))
        assertContains(
            assertFailsWith<BundleError> { other.readGolden() }.message.orEmpty(),
            "golden.json has more than 2097152 bytes",
        )
    }

    @Test
    fun `places that the artifact has not are another model's`() {
        val golden = parse(document())
        val error = assertFailsWith<BundleError> { golden.run(KeptCache(TinyLlama()), logitCount = 40) }
        assertContains(error.message.orEmpty(), "expected places of 40 logits")
        assertFailsWith<PromptError> { golden.run(KeptCache(TinyLlama(), 60)) }
    }
}
