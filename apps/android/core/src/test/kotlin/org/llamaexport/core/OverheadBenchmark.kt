package org.llamaexport.core

import java.lang.management.ManagementFactory
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.util.Random

private const val CONTEXT = 1024
private const val NEW_TOKENS = 900
private const val ROUNDS = 12
private const val DEMO_VOCABULARY = 4096
private const val ORDINARY_TOKENS = 3840
private const val LLAMA_3_VOCABULARY = 128_256
private val THREADS = ManagementFactory.getThreadMXBean()

/** A model that takes no time: its logits are drawn once. */
private class FreeModel(override val vocabSize: Int) : StepModel {
    override val maxContext = CONTEXT
    private val random = Random(1)
    private val buffers = List(16) { drawn() }
    private var calls = 0

    override fun step(ids: IntArray, position: Int): FloatBuffer = buffers[calls++ % buffers.size]

    override fun close() = Unit

    private fun drawn(): FloatBuffer {
        val bytes = ByteBuffer.allocateDirect(4 * vocabSize).order(ByteOrder.nativeOrder())
        val buffer = bytes.asFloatBuffer()
        for (id in 0 until vocabSize) buffer.put(id, (2 * random.nextGaussian()).toFloat())
        // As in a text, few tokens are likely; they are pieces of text, and no special tokens.
        for (rank in 0 until 20) buffer.put(random.nextInt(ORDINARY_TOKENS), 16f - rank / 2f)
        return buffer
    }
}

/**
 * Print what the core itself takes for a token: all but the model's step. It is a measurement, and no
 * test: a busy machine would fail it.
 *
 *     python3 tools/apps/check_android.py core
 *     java -cp build/android/core/classes:build/android/core/test-classes:KOTLIN_STDLIB_JAR \
 *         -Dllama.repository=. org.llamaexport.core.OverheadBenchmarkKt
 */
fun main() {
    val settings = mapOf(
        "greedy" to Sampling(temperature = 0.0),
        "the defaults" to Sampling(seed = 1),
        "all filters and a penalty" to Sampling(0.7, 0.9, 50, 1, 0.05, 1.1),
        "no filter" to Sampling(temperature = 0.7, topP = 1.0, seed = 1),
    )
    for (vocabulary in listOf(DEMO_VOCABULARY, LLAMA_3_VOCABULARY)) {
        for ((name, sampling) in settings) {
            println("$vocabulary ids, $name: ${microseconds(vocabulary, sampling)} us")
        }
    }
}

private fun microseconds(vocabulary: Int, sampling: Sampling): String {
    val demo = demoTokenizer()
    val tokenizer = object : Tokenizer by demo {
        override val vocabSize = vocabulary

        override fun streamDecoder(continues: Boolean) = object : StreamDecoder {
            private val decoder = demo.streamDecoder(continues)

            override fun push(id: Int) = decoder.push(id % ORDINARY_TOKENS)

            override fun flush() = decoder.flush()
        }
    }
    val generator = Generator(KeptCache(FreeModel(vocabulary)), tokenizer, emptySet())
    val settings = WriteSettings(sampling, NEW_TOKENS, listOf("\n\nUser:"))
    val samples = List(ROUNDS) {
        // The processor's time, so that other programs do not count.
        val begun = THREADS.currentThreadCpuTime
        generator.begin(IntArray(64) { it }, settings).finish()
        (THREADS.currentThreadCpuTime - begun) / 1e3 / NEW_TOKENS
    }
    return "%.1f".format(samples.drop(ROUNDS / 2).min())
}
