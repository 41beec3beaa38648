package org.llamaexport.core

import java.io.File
import java.nio.FloatBuffer
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

private val GREEDY = Sampling(temperature = 0.0)

class GeneratorTest {
    /** A model that wants one id after the other, whatever it reads. */
    private class Script(private val ids: List<Int>, private val odd: Float? = null) : RowModel(256, 64) {
        private val buffer = FloatBuffer.allocate(256)
        private var told = 0

        override fun logits(held: Int): FloatBuffer {
            for (id in 0 until vocabSize) buffer.put(id, 0f)
            buffer.put(ids[told++ % ids.size], 1f)
            if (odd != null) buffer.put(3, odd)
            return buffer
        }
    }

    private fun generator(model: StepModel, stopIds: Set<Int> = emptySet(), clock: () -> Long = { 0 }) =
        Generator(KeptCache(model), LetterTokenizer(), stopIds, clock = clock)

    private fun script(text: String) = Script(text.toByteArray().map { it.toInt() and 0xFF } + 0)

    @Test
    fun `pieces are whole characters`() {
        val pieces = ArrayList<String>()
        val model = script("a\u00e9\uD83D\uDE00b")
        val run = generator(model, setOf(0)).begin(intArrayOf(1), WriteSettings(GREEDY))
        val found = run.finish { pieces += it }
        assertEquals(listOf("a", "\u00e9", "\uD83D\uDE00", "b"), pieces)
        assertEquals("a\u00e9\uD83D\uDE00b", found.text)
        assertEquals(8, found.stats.newTokens)
        assertEquals(StopReason.STOP_TOKEN, found.stats.stopReason)
        assertNull(run.next(Stop()))
    }

    @Test
    fun `what was held back comes at the end, half a character as U+FFFD`() {
        val settings = WriteSettings(GREEDY, 4, listOf("abc"))
        assertEquals("xxab", generator(script("xxab")).begin(intArrayOf(1), settings).finish().text)
        assertEquals("xx\u00e9", generator(script("xx\u00e9")).begin(intArrayOf(1), settings).finish().text)
        assertEquals("xxx\uFFFD", generator(script("xxx\u00e9")).begin(intArrayOf(1), settings).finish().text)
    }

    @Test
    fun `what was held back when somebody stops is no text`() {
        for ((text, lastCall) in listOf("xxab" to 4, "xx\u00e9" to 3)) {
            val stop = Stop()
            var calls = 0
            val told = script(text)
            val model = object : StepModel by told {
                override fun step(ids: IntArray, position: Int): FloatBuffer {
                    if (++calls == lastCall) stop.request()
                    return told.step(ids, position)
                }
            }
            val settings = WriteSettings(GREEDY, 9, listOf("abc"))
            val found = generator(model).begin(intArrayOf(1), settings).finish(stop)
            assertEquals("xx", found.text)
            assertEquals(lastCall, found.ids.size)
        }
    }

    @Test
    fun `a text that goes on keeps its first blank, an answer has none`() {
        val pieces = loadTokenizer(File(REPOSITORY, "apps/shared/vectors/tokenizers/llama2"))
        val word = pieces.encode("a").last()
        val model = object : RowModel(pieces.vocabSize) {
            override fun logits(held: Int): FloatBuffer =
                FloatBuffer.wrap(FloatArray(vocabSize).also { it[word] = 1f })
        }
        val generator = Generator(KeptCache(model), pieces, emptySet())
        assertEquals(" a a", generator.begin("a", WriteSettings(GREEDY, 2)).finish().text)
        assertEquals("a a", generator.begin(intArrayOf(word), WriteSettings(GREEDY, 2)).finish().text)
    }

    @Test
    fun `a stop text ends the text before it`() {
        val settings = WriteSettings(GREEDY, 30, listOf("\n\n", "END"))
        val found = generator(script("One\n\nTwo END")).begin(intArrayOf(1), settings).finish()
        assertEquals("One", found.text)
        assertEquals(5, found.ids.size)
        assertEquals(StopReason.STOP_TEXT, found.stats.stopReason)
    }

    @Test
    fun `figures are those of the formulas`() {
        var now = -5_000_000_000L
        val clock = { now }
        val model = object : RowModel() {
            override fun step(ids: IntArray, position: Int): FloatBuffer {
                now += if (ids.size > 1) 2_000_000_000 else 250_000_000
                return super.step(ids, position)
            }
        }
        val generator = generator(model, clock = clock)
        val found = generator.begin(intArrayOf(1, 2, 3), WriteSettings(GREEDY, 9)).finish()
        assertEquals(2.0, found.stats.timeToFirstTokenS)
        assertEquals(2.0, found.stats.decodeS)
        assertEquals(8 / 2.0, found.stats.decodeTokensPerS)
        assertEquals(12, found.stats.contextTokens)
        assertEquals(64, found.stats.maxContext)
    }

    @Test
    fun `one token has no speed, and an empty answer its time`() {
        var now = 1L
        fun write(stopIds: Set<Int>) =
            generator(RowModel(), stopIds, { now++ }).begin(intArrayOf(1), WriteSettings(GREEDY, 1)).finish()
        val one = write(emptySet())
        assertEquals(0.0, one.stats.decodeTokensPerS)
        val none = write((0..63).toSet())
        assertEquals(0, none.stats.newTokens)
        assertEquals(1e-9, none.stats.timeToFirstTokenS)
        assertEquals(0.0, none.stats.decodeS)
        val two = generator(script("ab"), setOf(0), { now++ }).begin(intArrayOf(1), WriteSettings(GREEDY))
        assertEquals(1e-9, two.finish().stats.decodeS)
    }

    @Test
    fun `a prompt is read in pieces and can be stopped between them`() {
        val model = RowModel(maxContext = 400)
        val stop = Stop()
        val seen = ArrayList<Pair<Int, Int>>()
        val prompt = IntArray(300) { it % 60 }
        val generator = generator(model)
        val run = generator.begin(prompt, WriteSettings(GREEDY, 3))
        assertNull(run.next(stop) { done, all ->
            seen += done to all
            if (done == 128) stop.request()
        })
        assertEquals(listOf(0 to 300, 128 to 300), seen)
        assertEquals(listOf(128), model.calls)
        assertEquals(StopReason.INTERRUPTED, run.completion.stats.stopReason)
        assertContentEquals(prompt.copyOf(128), generator.cache.tokens)
        val again = generator.begin(prompt, WriteSettings(GREEDY, 3)).finish()
        assertEquals(128, again.stats.reusedTokens)
        val fresh = generator(RowModel(maxContext = 400)).begin(prompt, WriteSettings(GREEDY, 3)).finish()
        assertContentEquals(fresh.ids, again.ids)
    }

    /** A model whose long calls take until somebody stops them, and that stops once too often. */
    private class Slow : RowModel(maxContext = 400) {
        val isReading = CountDownLatch(1)
        private val stopped = CountDownLatch(1)
        var lateStops = 0

        override fun step(ids: IntArray, position: Int): FloatBuffer {
            if (ids.size == PIECE_TOKENS && position > 0) {
                isReading.countDown()
                check(stopped.await(10, TimeUnit.SECONDS)) { "nobody stopped it" }
                super.step(ids.copyOf(9), position)
                throw StepStopped()
            }
            if (lateStops-- > 0) throw StepStopped()
            return super.step(ids, position)
        }

        override fun stop() = stopped.countDown()
    }

    @Test
    fun `a call that takes long is stopped from another thread`() {
        val model = Slow()
        val generator = generator(model)
        val stop = Stop()
        thread {
            model.isReading.await()
            stop.request()
        }
        val found = generator.begin(IntArray(300) { it % 60 }, WriteSettings(GREEDY)).finish(stop)
        assertEquals(StopReason.INTERRUPTED, found.stats.stopReason)
        assertEquals(PIECE_TOKENS, generator.cache.position)
        model.lateStops = 1
        val again = generator.begin(intArrayOf(1, 2), WriteSettings(GREEDY, 5)).finish()
        val fresh = generator(RowModel()).begin(intArrayOf(1, 2), WriteSettings(GREEDY, 5)).finish()
        assertContentEquals(fresh.ids, again.ids)
    }

    @Test
    fun `a stop before the first call does nothing at all`() {
        val model = RowModel()
        val run = generator(model).begin(intArrayOf(1), WriteSettings(GREEDY))
        assertNull(run.next(Stop().apply { request() }))
        assertTrue(model.calls.isEmpty())
        assertEquals(0.0, run.completion.stats.timeToFirstTokenS)
    }

    @Test
    fun `a text that another one ended writes nothing more`() {
        val model = RowModel()
        val generator = generator(model)
        val first = generator.begin(intArrayOf(1, 2), WriteSettings(GREEDY))
        first.finish(stopAfter(first, 2))
        val begun = generator.begin(intArrayOf(1, 2), WriteSettings(GREEDY))
        begun.next(Stop())
        val second = generator.begin(intArrayOf(9), WriteSettings(GREEDY))
        second.next(Stop())
        val calls = model.calls.size
        assertNull(begun.next(Stop()))
        assertEquals(calls, model.calls.size)
    }

    private fun stopAfter(run: TextRun, pieces: Int): Stop = Stop().also { stop ->
        repeat(pieces) { run.next(stop) }
        stop.request()
    }

    @Test
    fun `a runtime that fails leaves what was written, and the next text is right`() {
        var failing = false
        val model = object : RowModel() {
            override fun step(ids: IntArray, position: Int): FloatBuffer {
                val logits = super.step(ids, position)
                if (failing) throw EngineError("0x21", "")
                return logits
            }
        }
        val generator = generator(model)
        val run = generator.begin(intArrayOf(1, 2, 3), WriteSettings(GREEDY, 20))
        repeat(3) { run.next(Stop()) }
        failing = true
        assertFailsWith<EngineError> { run.next(Stop()) }
        assertNull(run.next(Stop()))
        assertEquals(3, run.completion.ids.size)
        failing = false
        assertEquals(5, generator.cache.position)
        val edited = intArrayOf(1, 2, 7)
        val fresh = generator(RowModel()).begin(edited, WriteSettings(GREEDY)).finish()
        assertContentEquals(fresh.ids, generator.begin(edited, WriteSettings(GREEDY)).finish().ids)
    }

    @Test
    fun `a seed gives the same text again, and another one another`() {
        fun write(seed: Long?) = generator(RowModel(steps = 2048f))
            .begin(intArrayOf(5), WriteSettings(Sampling(temperature = 1.0, seed = seed), 30)).finish()
        assertContentEquals(write(7).ids, write(7).ids)
        assertTrue(!write(7).ids.contentEquals(write(8).ids))
        val fresh = write(null)
        assertContentEquals(fresh.ids, write(fresh.stats.seed).ids)
    }

    @Test
    fun `ids beyond the tokenizer are never drawn`() {
        val wide = RowModel(vocabSize = 400)
        val settings = WriteSettings(Sampling(temperature = 1.0, seed = 1), 60)
        val found = generator(wide).begin(intArrayOf(1), settings).finish()
        assertTrue(found.ids.all { it < 256 })
    }

    @Test
    fun `the logits of a pruned head stand for its tokens`() {
        val kept = intArrayOf(7, 65, 66, 300)
        val model = object : RowModel(64) {
            override fun logits(held: Int): FloatBuffer =
                FloatBuffer.wrap(floatArrayOf(1f, 0f, held.toFloat() - 2, 99f))
        }
        val wide = object : StepModel by model {
            override val vocabSize = 301
        }
        val generator = Generator(KeptCache(wide), LetterTokenizer(), setOf(66), kept)
        val found = generator.begin(intArrayOf(1), WriteSettings(GREEDY)).finish()
        assertContentEquals(intArrayOf(7, 7, 7), found.ids)
        assertEquals(StopReason.STOP_TOKEN, found.stats.stopReason)
    }

    @Test
    fun `logits that are no numbers are an engine's error`() {
        for (odd in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            val run = generator(Script(listOf(1), odd)).begin(intArrayOf(1), WriteSettings(GREEDY))
            val error = assertFailsWith<EngineError> { run.next(Stop()) }
            assertContains(error.message.orEmpty(), "1 of 256 are NaN")
        }
        val pruned = generator(Script(listOf(7), Float.NEGATIVE_INFINITY))
        assertContentEquals(intArrayOf(7), pruned.begin(intArrayOf(1), WriteSettings(GREEDY, 1)).finish().ids)
        val none = object : RowModel() {
            override fun logits(held: Int): FloatBuffer =
                FloatBuffer.wrap(FloatArray(64) { Float.NEGATIVE_INFINITY })
        }
        assertFailsWith<EngineError> { generator(none).begin(intArrayOf(1)).next(Stop()) }
    }

    @Test
    fun `what cannot be begun is refused`() {
        val generator = generator(RowModel())
        assertContains(assertFailsWith<PromptError> { generator.begin("") }.message.orEmpty(), "empty")
        assertFailsWith<PromptError> { generator.begin(intArrayOf()) }
        val long = assertFailsWith<PromptError> { generator.begin(IntArray(65)) }
        assertContains(long.message.orEmpty(), "65 tokens long, and the context has room for 64")
        val none = assertFailsWith<BadInput> { WriteSettings(maxTokens = 0) }
        assertContains(none.message.orEmpty(), "found 0")
        assertFailsWith<BadInput> { WriteSettings(stopTexts = listOf("a", "")) }
        for (context in listOf(0, 65)) {
            val error = assertFailsWith<BadInput> { KeptCache(RowModel(), context) }
            assertContains(error.message.orEmpty(), "1 to 64, the positions of this bundle; found $context")
        }
    }

    @Test
    fun `a smaller context than the model's is kept to`() {
        val generator = Generator(KeptCache(RowModel(), 10), LetterTokenizer(), emptySet())
        val found = generator.begin(intArrayOf(1, 2), WriteSettings(GREEDY, 50)).finish()
        assertEquals(StopReason.CONTEXT_FULL, found.stats.stopReason)
        assertEquals(10, generator.cache.position)
        val full = assertFailsWith<PromptError> { generator.cache.read(intArrayOf(1)) }
        assertContains(full.message.orEmpty(), "for 0")
    }

    @Test
    fun `rewinding and closing`() {
        val model = RowModel()
        val cache = KeptCache(model)
        cache.read(intArrayOf(1, 2, 3))
        cache.rewind(1)
        assertContentEquals(intArrayOf(1), cache.tokens)
        for (position in listOf(2, -1)) {
            val error = assertFailsWith<PromptError> { cache.rewind(position) }
            assertContains(error.message.orEmpty(), "$position")
        }
        assertFailsWith<PromptError> { cache.read(intArrayOf()) }
        assertContentEquals(intArrayOf(1), cache.tokens)
        cache.close()
        assertTrue(model.isClosed)
    }
}
