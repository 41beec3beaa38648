package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals

class ModelSamplingTest {
    private fun of(text: String) = modelSampling(parseJson(text, "generation_config.json") as JsonObject)

    @Test
    fun `a model's wishes hold, and ours where it has none`() {
        val most = """{"temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0.1"""
        val expected = ModelSampling(Sampling(0.6, 0.9, 50, null, 0.1, 1.1), emptyList())
        assertEquals(expected, of("""$most, "repetition_penalty": 1.1}"""))
        val one = of("""{"temperature": 1, "top_p": null, "other": 7}""")
        assertEquals(ModelSampling(Sampling(temperature = 1.0), emptyList()), one)
        assertEquals(Sampling(), of("{}").sampling)
    }

    @Test
    fun `who does not sample takes the likeliest`() {
        assertEquals(0.0, of("""{"do_sample": false, "temperature": 0.6}""").sampling.temperature)
        assertEquals(0.6, of("""{"do_sample": true, "temperature": 0.6}""").sampling.temperature)
        assertEquals(Sampling(), of("""{"do_sample": 0}""").sampling)
    }

    @Test
    fun `a wish that cannot be had is passed over with a notice`() {
        val text = """{"temperature": -1, "top_p": "0.9", "top_k": 1.5, "min_p": true}"""
        val found = of(text.dropLast(1) + """, "repetition_penalty": 1.2}""")
        assertEquals(Sampling(repetitionPenalty = 1.2), found.sampling)
        assertEquals(4, found.passedOver.size)
        assertContains(found.passedOver[0], "temperature cannot be -1; it is passed over")
    }
}
