package org.llamaexport.core

import java.nio.FloatBuffer
import java.util.Random
import java.util.concurrent.Semaphore
import java.util.concurrent.atomic.AtomicReference
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue

private val GREEDY = Sampling(temperature = 0.0)

/** Whatever ends a text, and whenever: the next one is that of a model without a past. */
class CacheTruthTest {
    /** A model that is stopped and fails as runtimes do: some rows are written by then, or all. */
    private class Unsteady(private val random: Random, private val finger: Finger) : RowModel(256, 700) {
        @Volatile
        private var isStopping = false
        var stopped = 0

        /** Number of calls until one fails; negative: none does. */
        var failsIn = -1

        override fun step(ids: IntArray, position: Int): FloatBuffer {
            isStopping = false
            if (failsIn-- == 0) {
                writeSome(ids, position)
                throw EngineError("the runtime failed", "")
            }
            if (random.nextInt(20) == 0 && finger.isReady) {
                finger.tap()
                val begun = System.nanoTime()
                while (!isStopping && System.nanoTime() - begun < 5_000_000_000) Thread.yield()
            }
            if (isStopping) {
                stopped += 1
                writeSome(ids, position)
                throw StepStopped()
            }
            return super.step(ids, position)
        }

        override fun stop() {
            isStopping = true
        }

        private fun writeSome(ids: IntArray, position: Int) {
            val count = random.nextInt(ids.size + 1)
            if (count > 0) super.step(ids.copyOf(count), position)
        }
    }

    /** Another thread, which taps on "stop", and sometimes twice, so that it is too late. */
    private class Finger : AutoCloseable {
        private val taps = Semaphore(0)
        private val target = AtomicReference<Stop?>()
        private val worker = thread {
            val random = Random(1)
            try {
                while (true) {
                    taps.acquire()
                    val stop = target.get()
                    stop?.request()
                    if (random.nextInt(3) == 0) Thread.yield()
                    if (random.nextInt(3) == 0) stop?.request()
                }
            } catch (_: InterruptedException) {
                // It is closed.
            }
        }
        val isReady: Boolean get() = target.get() != null

        fun tap() = taps.release()

        fun aim(stop: Stop?) = target.set(stop)

        override fun close() {
            worker.interrupt()
            worker.join()
        }
    }

    private fun generator(model: StepModel) = Generator(KeptCache(model), LetterTokenizer(), setOf(7, 77))

    private fun nextPrompt(last: IntArray, random: Random): IntArray = when (random.nextInt(4)) {
        0 -> last.copyOf(1 + random.nextInt(last.size))
        1 -> last.copyOf().also { it[random.nextInt(it.size)] = random.nextInt(256) }
        2 -> IntArray(1 + random.nextInt(300)) { random.nextInt(256) }
        else -> last + IntArray(1 + random.nextInt(20)) { random.nextInt(256) }
    }

    @Test
    fun `stops from another thread, failures and faults of the screen leave a true cache`() {
        val ends = HashMap<String, Int>()
        val stopped = Finger().use { finger ->
            (0L until 30).sumOf { play(Random(it), finger, ends) }
        }
        for (end in listOf("interrupted", "EngineError", "IllegalStateException", "length")) {
            assertTrue((ends[end] ?: 0) > 10, "$ends")
        }
        assertTrue(stopped > 10, "$stopped were stopped in the middle of a call")
    }

    /** Write texts, count how they end, and return how many calls were stopped in the middle. */
    private fun play(random: Random, finger: Finger, ends: HashMap<String, Int>): Int {
        val model = Unsteady(random, finger)
        val generator = generator(model)
        var prompt = intArrayOf(1)
        repeat(30) {
            prompt = nextPrompt(prompt, random).let { it.copyOf(minOf(it.size, 500)) }
            model.failsIn = if (random.nextInt(4) == 0) random.nextInt(8) else -1
            val settings = WriteSettings(GREEDY, 1 + random.nextInt(20))
            val stop = Stop()
            var left = if (random.nextInt(5) == 0) random.nextInt(6) else Int.MAX_VALUE
            finger.aim(stop.takeIf { random.nextInt(2) == 0 })
            val run = generator.begin(prompt, settings)
            val end = try {
                run.finish(stop) { check(left-- > 0) { "the screen is gone" } }
                run.completion.stats.stopReason.words
            } catch (error: Exception) {
                error.javaClass.simpleName
            }
            ends.merge(end, 1, Int::plus)
            val ids = run.completion.ids
            val tokens = generator.cache.tokens
            assertContentEquals((prompt + ids).copyOf(tokens.size), tokens)
            assertContentEquals(IntArray(tokens.size) { mix(tokens[it], it) }, model.rows.copyOf(tokens.size))
            val fresh = generator(RowModel(256, 700)).begin(prompt, settings).finish().ids
            assertContentEquals(fresh.copyOf(ids.size), ids)
            if (end == "length" || end == "stop token") assertEquals(fresh.size, ids.size)
            prompt += ids
        }
        return model.stopped
    }

    @Test
    fun `a stop after the last call does not reach the model`() {
        var stops = 0
        val model = object : RowModel() {
            override fun stop() {
                stops += 1
            }
        }
        val stop = Stop()
        generator(model).begin(intArrayOf(1), WriteSettings(GREEDY, 3)).finish(stop)
        stop.request()
        assertEquals(0, stops)
    }

    @Test
    fun `rows that gave no numbers are read again`() {
        var isHot = false
        val bad = HashSet<Int>()
        val model = object : RowModel() {
            override fun step(ids: IntArray, position: Int): FloatBuffer {
                bad.removeIf { it >= position }
                if (isHot) bad += position until position + ids.size
                val logits = super.step(ids, position)
                if (bad.isNotEmpty()) logits.put(0, Float.NaN)
                return logits
            }
        }
        val generator = generator(model)
        val settings = WriteSettings(GREEDY, 9)
        val first = intArrayOf(1, 2, 3)
        val expected = generator.begin(first, settings).finish().ids
        for (good in listOf(0, 1, 4)) {
            generator.cache.rewind(0)
            val run = generator.begin(first, settings)
            repeat(good) { run.next(Stop()) }
            isHot = true
            assertFailsWith<EngineError> { run.finish() }
            isHot = false
            assertNotEquals(emptySet(), bad)
            assertContentEquals(expected, generator.begin(first, settings).finish().ids)
        }
    }

    @Test
    fun `a text ends as soon as another is asked for, also where that is refused`() {
        val generator = generator(RowModel())
        val refused = listOf<() -> TextRun>({ generator.begin("") }, { generator.begin(intArrayOf()) })
        for (begin in refused) {
            val run = generator.begin(intArrayOf(1), WriteSettings(GREEDY))
            run.next(Stop())
            assertFailsWith<PromptError> { begin() }
            assertNull(run.next(Stop()))
        }
    }

    @Test
    fun `a continuation and an answer are as long as Python's by default`() {
        val model = RowModel(256, 700)
        val found = Generator(KeptCache(model), LetterTokenizer(), emptySet()).begin(intArrayOf(1)).finish()
        assertEquals(256, found.ids.size)
        assertEquals(512, WriteSettings().maxTokens)
    }
}
