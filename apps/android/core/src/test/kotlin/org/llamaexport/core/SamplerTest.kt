package org.llamaexport.core

import java.util.Random
import kotlin.math.exp
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue

class SamplerTest {
    private val vectors = Vectors("sampler.json")
    private val logits = HashMap<String, FloatArray>().also { found ->
        vectors.each("logits") { found[it.text("name")] = floats(it, "values") }
    }

    private fun floats(fields: JsonFields, key: String): FloatArray = fields.list(key).map {
        if (it is JsonNumber) it.double().toFloat() else Float.NEGATIVE_INFINITY
    }.toFloatArray()

    private fun number(json: Json?): Double? = when (json) {
        is JsonNumber -> json.double()
        is JsonText -> mapOf(
            "nan" to Double.NaN, "inf" to Double.POSITIVE_INFINITY, "-inf" to Double.NEGATIVE_INFINITY,
        )[json.value]
        else -> null
    }

    private fun settings(fields: JsonFields): Sampling {
        val known = Sampling()
        val given = fields.json.entries
        val names = setOf("temperature", "top_p", "top_k", "seed", "min_p", "repetition_penalty")
        assertTrue(names.containsAll(given.keys), "$given")
        return Sampling(
            temperature = number(given["temperature"]) ?: known.temperature,
            topP = number(given["top_p"]) ?: known.topP,
            topK = (given["top_k"] as? JsonNumber)?.int() ?: known.topK,
            seed = (given["seed"] as? JsonNumber)?.long(),
            minP = number(given["min_p"]) ?: known.minP,
            repetitionPenalty = number(given["repetition_penalty"]) ?: known.repetitionPenalty,
        )
    }

    @Test
    fun `the defaults are Python's`() {
        val defaults = vectors.fields("defaults")
        assertEquals(6, defaults.json.entries.size)
        assertEquals(Sampling(), settings(defaults))
    }

    @Test
    fun `every draw is Python's`() = vectors.each("draw") {
        val given = logits.getValue(it.text("logits"))
        val drawn = Sampler(given.size).draw(given, settings(it.fields("settings")), it.double("u"))
        assertEquals(it.int("id"), drawn)
    }

    @Test
    fun `a sampler is not changed by what it drew before`() {
        val samplers = HashMap<Int, Sampler>()
        vectors.each("draw") {
            val given = logits.getValue(it.text("logits"))
            val sampler = samplers.getOrPut(given.size) { Sampler(given.size) }
            assertEquals(it.int("id"), sampler.draw(given, settings(it.fields("settings")), it.double("u")))
        }
    }

    @Test
    fun `every penalty is Python's`() = vectors.each("penalise") {
        val given = logits.getValue(it.text("logits")).copyOf()
        val sampling = settings(it.fields("settings"))
        penalise(given, it.ints("ids").toList(), sampling.repetitionPenalty)
        assertContentEquals(floats(it, "values"), given)
        assertEquals(it.int("id"), Sampler(given.size).draw(given, sampling, it.double("u")))
    }

    @Test
    fun `every setting out of range is refused in Python's words`() = vectors.each("refused") {
        val error = assertFailsWith<BadInput> { settings(it.fields("settings")) }
        // Whole numbers are whole here by their type.
        assertEquals(it.text("message"), error.message)
    }

    @Test
    fun `a model's wishes are heard as Python hears them`() = vectors.each("wishes") {
        assertEquals(settings(it.fields("sampling")), modelSampling(it.fields("settings").json).sampling)
    }

    @Test
    fun `seeds give the numbers that every phone gives`() = vectors.each("random") {
        val random = SeededRandom(it.long("seed"))
        for (u in it.list("u")) assertEquals((u as JsonNumber).double(), random.next())
    }

    @Test
    fun `a fresh seed is drawn where there is none`() {
        val seeds = List(3) { Sampling().withSeed().seed }
        assertEquals(3, seeds.toSet().size)
        assertTrue(seeds.all { it in 0L..0xFFFFFFFFL })
        assertEquals(7, Sampling(seed = 7).withSeed().seed)
    }

    @Test
    fun `a draw with what is no random number is a mistake of ours`() {
        for (u in listOf(-0.1, 1.0, Double.NaN)) {
            assertFailsWith<IllegalArgumentException> { Sampler(2).draw(floatArrayOf(1f, 2f), Sampling(), u) }
        }
        assertFailsWith<IllegalArgumentException> { Sampler(3).draw(floatArrayOf(1f, 2f), Sampling(), 0.5) }
    }

    @Test
    fun `every id is drawn as often as its probability says`() {
        val given = floatArrayOf(0f, 1f, 2f, 1.5f)
        val weights = given.map { exp(it.toDouble()) }
        val sampler = Sampler(4)
        val counts = IntArray(4)
        val draws = 10_000
        for (number in 0 until draws) {
            val u = (number + 0.5) / draws
            counts[sampler.draw(given, Sampling(temperature = 1.0, topP = 1.0), u)] += 1
        }
        for (id in 0..3) assertEquals(weights[id] / weights.sum(), counts[id].toDouble() / draws, 1e-3)
    }

    @Test
    fun `a share is the exponential, as far as anything is drawn by it`() {
        for (step in 0..84_000) {
            val x = -step / 1000.0
            val found = powerOfRoot((x / 64).toFloat()).toDouble()
            assertEquals(exp(x), found, 3e-6 * exp(x / 2), "$x")
        }
        assertEquals(1f, powerOfRoot(0f))
    }

    @Test
    fun `what is far less likely than another token is never drawn`() {
        val given = FloatArray(600) { if (it % 2 == 0) Float.NEGATIVE_INFINITY else -1e30f }
        given[300] = 0f
        for (sampling in listOf(Sampling(1.0, topP = 1.0), Sampling(1.0, topP = 1.0, topK = 3), Sampling())) {
            for (u in listOf(0.0, 1 - 1e-16)) assertEquals(300, Sampler(600).draw(given, sampling, u))
        }
        val any = FloatArray(3) { if (it == 1) 0f else Float.NEGATIVE_INFINITY }
        assertEquals(1, Sampler(3).draw(any, Sampling(1e300, topP = 1.0), 0.99))
    }

    @Test
    fun `two logits are told apart by their last bit`() {
        val given = floatArrayOf(5f, Math.nextUp(5f))
        assertEquals(1, Sampler(2).draw(given, Sampling(1.0, topP = 1.0, topK = 1), 0.0))
    }

    @Test
    fun `where rounding turns two shares round at a bound, the larger logit is kept`() {
        // Found among all float32; counting by exponents has a bound between the two shares.
        val larger = -0.46570814f
        val smaller = Math.nextDown(larger)
        assertTrue(powerOfRoot(larger) < powerOfRoot(smaller))
        val given = floatArrayOf(0f, 64 * smaller, 64 * larger)
        assertEquals(2, Sampler(3).draw(given, Sampling(1.0, topP = 1.0, topK = 2), 1 - 1e-16))
    }

    @Test
    fun `a large vocabulary is ranked as a plain sort ranks it`() {
        val random = Random(5)
        var different = 0
        for (round in 0 until 60) {
            val size = 1 + random.nextInt(20_000)
            val spread = 0.2 + 5 * random.nextDouble()
            val steps = if (round % 3 == 0) 4.0 else 1e6
            val given = FloatArray(size) {
                (Math.rint(random.nextGaussian() * spread * steps) / steps).toFloat()
            }
            val sampling = Sampling(
                temperature = 0.3 + random.nextDouble(),
                topP = if (random.nextBoolean()) 1.0 else 0.5 + random.nextDouble() / 2,
                topK = if (random.nextBoolean()) 0 else 1 + random.nextInt(500),
                minP = if (random.nextBoolean()) 0.0 else random.nextDouble() / 10,
            )
            val u = random.nextDouble()
            val expected = plainDraw(given, sampling, u)
            assertEquals(expected, Sampler(size).draw(given, sampling, u), "$round: $sampling, $u")
            if (expected != likeliest(given)) different += 1
        }
        assertNotEquals(0, different)
    }

    private fun plainDraw(logits: FloatArray, sampling: Sampling, u: Double): Int {
        val top = logits.max()
        val shares = logits.map { exp(((it - top) / sampling.temperature.toFloat()).toDouble()).toFloat() }
        var ids = logits.indices.toList()
        val filters = sampling.topK in 1 until logits.size || sampling.topP < 1
        if (filters) ids = ids.sortedWith(compareBy({ -shares[it] }, { it }))
        if (sampling.topK > 0) ids = ids.take(sampling.topK)
        if (sampling.topP < 1) {
            val wanted = sampling.topP * ids.sumOf { shares[it].toDouble() }
            var sum = 0.0
            ids = ids.take(ids.indexOfFirst { id -> (sum + shares[id]).also { sum = it } >= wanted } + 1)
        }
        ids = ids.filter { shares[it] >= sampling.minP.toFloat() }
        val wanted = u * ids.sumOf { shares[it].toDouble() }
        var sum = 0.0
        return ids.first { id -> (sum + shares[id]).also { sum = it } > wanted }
    }
}
