package org.llamaexport.core.tokenizer

import kotlin.test.Test
import kotlin.test.assertEquals

class SplittersTest {
    private val llama3 = Llama3Splitter(CharacterClasses.shared)
    private val gpt2 = Gpt2Splitter(CharacterClasses.shared)
    private val digits = DigitSplitter(CharacterClasses.shared, alone = false)

    private fun List<Splitter>.pieces(text: String): List<String> = buildList {
        split(text, 0, text.length) { from, to -> add(text.substring(from, to)) }
    }

    @Test
    fun `Llama 3's pattern cuts where it should`() {
        val text = "It'S 12345 x\u0661\u0662!?\r\n\n  \t we'LL'\u017Fa  .b \n"
        val expected = listOf(
            "It", "'S", " ", "123", "45", " x", "\u0661\u0662", "!?\r\n\n", "  \t", " we", "'LL", "'\u017F",
            "a", " ", " .", "b", " \n",
        )
        assertEquals(expected, listOf(llama3).pieces(text))
    }

    @Test
    fun `GPT-2's pattern cuts where it should`() {
        val text = "It's 12345 x\u0661!?\r\n\n  \t we'LL'ta  .b \n"
        val expected = listOf(
            "It", "'s", " 12345", " x", "\u0661", "!?", "\r\n\n  \t", " we", "'", "LL", "'t", "a", " ", " .",
            "b", " \n",
        )
        assertEquals(expected, listOf(gpt2).pieces(text))
    }

    @Test
    fun `steps cut the pieces of those before them`() {
        assertEquals(listOf("a", " ", "12", "b", "3"), listOf(digits, gpt2).pieces("a 12b3"))
        assertEquals(listOf("a b"), emptyList<Splitter>().pieces("a b"))
        assertEquals(emptyList(), listOf(gpt2).pieces(""))
    }

    @Test
    fun `what follows the text is not looked at`() {
        for (splitter in listOf(llama3, gpt2)) {
            assertEquals(1, splitter.end("'s", 0, 1))
            assertEquals(1, splitter.end("'ll", 0, 1))
            assertEquals(1, splitter.end(" a", 0, 1))
            assertEquals(2, splitter.end("  a", 0, 2))
            assertEquals(2, splitter.end("12a", 0, 2))
        }
        assertEquals(1, llama3.end("!\n", 0, 1))
        assertEquals(2, llama3.end("'l", 0, 2))
    }
}
