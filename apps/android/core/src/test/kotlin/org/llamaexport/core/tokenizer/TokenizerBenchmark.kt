package org.llamaexport.core.tokenizer

import org.llamaexport.core.JsonText
import org.llamaexport.core.fields
import org.llamaexport.core.loadTokenizer
import org.llamaexport.core.parseJson
import java.io.File
import java.lang.management.ManagementFactory

/**
 * Measures how fast text becomes ids and back. It is no test: the machine decides too.
 *
 * `tools/apps/tokenizer_fixtures.py FOLDER` makes what it reads. After `check_android.py core`:
 * ```
 * java -cp build/android/core/classes:build/android/core/test-classes:KOTLIN_STDLIB_JAR \
 *     org.llamaexport.core.tokenizer.TokenizerBenchmark FOLDER
 * ```
 */
object TokenizerBenchmark {
    private const val ROUNDS = 7
    private const val BYTES_PER_MB = 1e6

    /** Print, for each tokenizer of a folder, how long it loads, and the median of some rounds. */
    @JvmStatic
    fun main(arguments: Array<String>) {
        val folder = File(arguments.single())
        val texts = parseJson(File(folder, "texts.json").readText(), "texts.json").fields("texts.json")
            .list("texts").map { (it as JsonText).value }
        val prose = texts.take(PROSE_PARTS)
        for (own in folder.listFiles().orEmpty().filter { it.isDirectory }.sorted()) {
            val loads = List(ROUNDS) { elapsedS { loadTokenizer(own) } }
            val tokenizer = loadTokenizer(own)
            val mixed = texts.map(tokenizer::encode)
            val whole = prose.joinToString("")
            val median = loads.sorted()[ROUNDS / 2]
            println("${own.name}: first load %.2f s, median %.2f s".format(loads[0], median))
            println("  encode mixed %.1f MB/s".format(speed(texts) { texts.forEach(tokenizer::encode) }))
            println("  encode prose %.1f MB/s".format(speed(prose) { prose.forEach(tokenizer::encode) }))
            println("  in one text  %.1f MB/s".format(speed(listOf(whole)) { tokenizer.encode(whole) }))
            println("  decode mixed %.1f MB/s".format(speed(texts) { mixed.forEach(tokenizer::decode) }))
        }
    }

    private const val PROSE_PARTS = 192

    private fun speed(texts: List<String>, run: () -> Unit): Double {
        val sizeMb = texts.sumOf { it.encodeToByteArray().size } / BYTES_PER_MB
        return sizeMb / List(ROUNDS) { elapsedS(run) }.sorted()[ROUNDS / 2]
    }

    /** Time of the processor, so that other programs on the machine count less. */
    private fun elapsedS(run: () -> Unit): Double {
        val thread = ManagementFactory.getThreadMXBean()
        val begun = thread.currentThreadCpuTime
        run()
        return (thread.currentThreadCpuTime - begun) / 1e9
    }
}
