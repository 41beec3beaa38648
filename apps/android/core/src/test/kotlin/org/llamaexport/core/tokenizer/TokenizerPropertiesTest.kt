package org.llamaexport.core.tokenizer

import org.llamaexport.core.PromptError
import org.llamaexport.core.Tokenizer
import org.llamaexport.core.loadTokenizer
import java.io.File
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** What must hold for any text and any ids. */
class TokenizerPropertiesTest {
    private val repository = File(System.getProperty("llama.repository"))
    private val demo = loadTokenizer(File(repository, "export/llama_export/demo"))
    private val random = Random(14)

    private fun small(name: String): Tokenizer =
        loadTokenizer(File(repository, "apps/shared/vectors/tokenizers/$name"))

    private fun randomText(): String = buildString {
        repeat(random.nextInt(60)) {
            when (random.nextInt(6)) {
                0 -> append(BLANKS[random.nextInt(BLANKS.length)])
                1 -> append("'" + ENDINGS[random.nextInt(ENDINGS.size)])
                2 -> append(random.nextInt(100_000))
                3 -> append(('a'..'z').random(random)).append(('A'..'z').random(random))
                4 -> appendCharacter(random.nextInt(0xD800), this)
                else -> appendCharacter(random.nextInt(0xE000, 0x110000), this)
            }
        }
    }

    @Test
    fun `any text of a byte-level tokenizer comes back`() {
        for (tokenizer in listOf(demo, small("smollm2"), small("llama3"), small("gap"))) {
            repeat(TEXTS) {
                val text = randomText()
                assertEquals(text, tokenizer.decode(tokenizer.encode(text)))
            }
        }
    }

    @Test
    fun `any text of a SentencePiece tokenizer comes back, with blanks for their letter`() {
        for (tokenizer in listOf(small("llama2"), small("metaspace"))) {
            repeat(TEXTS) {
                val text = "x" + randomText()
                assertEquals(text.replace(BLANK_LETTER, ' '), tokenizer.decode(tokenizer.encode(text)))
            }
        }
    }

    @Test
    fun `any ids give the same text whole and one by one`() {
        for (name in listOf("smollm2", "distilled", "llama2", "openllama", "llama2-with-tools")) {
            val tokenizer = small(name)
            val stream = tokenizer.streamDecoder()
            repeat(TEXTS) {
                val ids = IntArray(random.nextInt(30)) { random.nextInt(tokenizer.vocabSize) }
                val pieces = ids.map(stream::push)
                assertTrue(pieces.none { it.isNotEmpty() && it.last() in '\uD800'..'\uDBFF' })
                assertEquals(tokenizer.decode(ids), pieces.joinToString("") + stream.flush())
            }
        }
    }

    @Test
    fun `bytes decode as Java's own decoder has it, however they are cut`() {
        repeat(20 * TEXTS) {
            val bytes = ByteArray(random.nextInt(12)) { LIKELY_BYTES.random(random).toByte() }
            val decoder = Utf8Decoder()
            val text = StringBuilder()
            val cut = random.nextInt(bytes.size + 1)
            decoder.decode(bytes.copyOf(cut), text)
            decoder.decode(bytes.copyOfRange(cut, bytes.size), text)
            decoder.finish(text)
            assertEquals(bytes.decodeToString(), text.toString(), bytes.joinToString { "%02x".format(it) })
        }
    }

    @Test
    fun `merging is that of the simplest rule`() {
        repeat(TEXTS) {
            val table = MergeTable(40)
            val rules = HashMap<Pair<Int, Int>, Pair<Int, Int>>()
            repeat(40) { rank ->
                val pair = random.nextInt(8) to random.nextInt(8)
                // Some ranks are shared, as those of one token's several pairs are.
                rules[pair] = rank / 2 to random.nextInt(8)
                table.put(pair.first, pair.second, rank / 2, rules.getValue(pair).second)
            }
            val tokens = IntArray(random.nextInt(1, 60)) { random.nextInt(8) }
            val expected = tokens.toMutableList()
            while (true) {
                val pairs = expected.zipWithNext().withIndex().filter { it.value in rules }
                val best = pairs.minByOrNull { rules.getValue(it.value).first } ?: break
                expected[best.index] = rules.getValue(best.value).second
                expected.removeAt(best.index + 1)
            }
            val count = Merger(table).merge(tokens, tokens.size)
            assertEquals(expected, tokens.take(count))
        }
    }

    @Test
    fun `a word of 100,000 letters costs no square`() {
        val word = "immediately".repeat(10_000)
        val odd = String(CharArray(100_000) { ('a'..'z').random(random) })
        for (tokenizer in listOf(demo, small("llama2"))) {
            val begun = System.nanoTime()
            for (text in listOf(word, odd, "a".repeat(100_000), " ".repeat(100_000) + "h")) {
                assertEquals(text, tokenizer.decode(tokenizer.encode(text)))
            }
            // A square would be ten thousand million steps each.
            assertTrue(System.nanoTime() - begun < 20_000_000_000, "it took more than 20 s")
        }
    }

    @Test
    fun `several threads encode at once`() {
        val text = List(40) { randomText() }.joinToString(" ")
        val expected = demo.encode(text).asList()
        val found = List(4) { mutableListOf<List<Int>>() }
        val threads = found.map { own -> Thread { repeat(20) { own.add(demo.encode(text).asList()) } } }
        threads.forEach { it.start() }
        threads.forEach { it.join() }
        assertEquals(80, found.flatten().count { it == expected })
    }

    @Test
    fun `half a surrogate pair is refused where it stands`() {
        for (text in listOf("a\uD83D", "\uDE00", "\uD83D\uD83D\uDE00", "\uDE00\uD83D")) {
            assertFailsWith<PromptError>(text) { demo.encode(text) }
        }
        assertEquals(1, demo.decode(demo.encode("\uD83D\uDE00")).codePointCount(0, 2))
    }

    private companion object {
        const val TEXTS = 200
        const val BLANKS = "    \t\n\r\u0085\u00A0\u3000"
        val ENDINGS = listOf("s", "S", "\u017F", "ll", "LL", "lL", "re", "ve", "d", "m", "t", "x")
        // Without 0xED, after which Java takes half a surrogate pair for one fault and Python for three.
        val LIKELY_BYTES = listOf(
            0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xE1, 0xEF, 0xF0, 0xF1,
            0xF4, 0xF5, 0xFF,
        )
    }
}
