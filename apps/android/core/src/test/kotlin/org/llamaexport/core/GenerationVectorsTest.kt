package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals

/** The same logic in Python and here gives the same. */
class GenerationVectorsTest {
    private val vectors = Vectors("generation.json")

    @Test
    fun `as many tokens need no reading`() = vectors.each("shared") {
        val cache = KeptCache(RowModel())
        if (it.ints("held").isNotEmpty()) cache.read(it.ints("held"))
        assertEquals(it.int("shared"), cache.sharedLength(it.ints("ids")))
        assertEquals(it.ints("held").size, cache.position)
        assertEquals(it.int("shared"), cache.keepPrefixOf(it.ints("ids")))
        assertContentEquals(it.ints("held").copyOf(it.int("shared")), cache.tokens)
    }

    @Test
    fun `stop texts end a text at the same place`() = vectors.each("stop_texts") {
        val stops = StopTexts(it.texts("stop"))
        val shown = ArrayList<String>()
        var tokens = 0
        for (piece in it.texts("pieces")) {
            if (stops.isFound) break
            tokens += 1
            shown += stops.release(piece)
        }
        shown += stops.rest()
        assertEquals(it.texts("shown"), shown.filter(String::isNotEmpty))
        assertEquals(it.int("tokens"), tokens)
        assertEquals(it.bool("stopped"), stops.isFound)
        assertEquals("", stops.rest())
    }

    @Test
    fun `a full context is found, and what helps`() = vectors.each("overflow") {
        val turns = it.ints("turns")
        val length = DialogLength { dropped, hasSystem ->
            turns.drop(dropped).sum() + if (hasSystem) it.int("system") else 0
        }
        val found = findOverflow(length, turns.size - 1, it.int("max_tokens"), it.int("max_context"))
        assertEquals("found" in it, found != null)
        if (found != null) {
            val expected = it.fields("found")
            assertEquals(expected.int("needed"), found.needed)
            assertEquals(it.int("max_context"), found.maxContext)
            assertEquals(expected.int("dropped_turns"), found.droppedTurns)
            val kept = if ("kept_tokens" in expected) expected.int("kept_tokens") else null
            assertEquals(kept, found.keptTokens)
            assertEquals(expected.text("too_long"), found.tooLong)
            assertEquals(expected.text("message"), found.message)
        }
    }

    @Test
    fun `whole texts have the same ids, ends and caches`() = vectors.each("texts") { text ->
        val model = RowModel(maxContext = text.int("max_context"))
        val generator = Generator(KeptCache(model), LetterTokenizer(), text.ints("stop_ids").toSet())
        val sampling = Sampling(temperature = 0.0, repetitionPenalty = text.double("repetition_penalty"))
        for (entry in text.list("runs")) {
            val run = entry.fields("runs")
            val settings = WriteSettings(sampling, text.int("max_tokens"))
            val found = generator.begin(run.ints("prompt"), settings).finish()
            assertContentEquals(run.ints("ids"), found.ids)
            assertEquals(run.text("stop_reason"), found.stats.stopReason.words)
            assertEquals(run.int("reused"), found.stats.reusedTokens)
            assertEquals(run.ints("ids").size, found.stats.newTokens)
            assertEquals(run.ints("prompt").size, found.stats.promptTokens)
            assertEquals(run.int("held"), generator.cache.position)
        }
    }
}
