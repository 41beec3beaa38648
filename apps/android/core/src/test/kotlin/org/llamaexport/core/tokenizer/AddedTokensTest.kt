package org.llamaexport.core.tokenizer

import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** Numbers and sections as the library `tokenizers` 0.23 gives them. */
class AddedTokensTest {
    private fun token(
        name: String,
        before: Boolean = false,
        after: Boolean = false,
        isSpecial: Boolean = false,
    ) = AddedToken(name, singleWord = false, before, after, normalized = false, isSpecial)

    private fun finder(added: AddedTokens): AddedTokenFinder =
        AddedTokenFinder(added.byId.map { (id, token) -> token.name to id }, added, CharacterClasses.shared)

    /** Cut a text at tokens with the ids 0, 1 and so on. */
    private fun cut(text: String, vararg tokens: AddedToken): List<Any> {
        val added = AddedTokens(emptyMap()).apply { add(tokens.asList()) }
        return finder(added).cut(text).map { it.id ?: it.text }
    }

    @Test
    fun `a vocabulary with a gap numbers new tokens from its count on, and a later call from its end`() {
        val added = AddedTokens(mapOf("a" to 0, "b" to 1, "<pad>" to 9))
        added.add(listOf(token("<pad>", isSpecial = true), token("<x>"), token("<y>")))
        assertEquals(mapOf(9 to "<pad>", 3 to "<x>", 4 to "<y>"), added.byId.mapValues { it.value.name })
        added.add(listOf(token("<z>"), token("<x>", after = true)))
        assertEquals("<z>", added.byId.getValue(10).name)
        assertTrue(added.byId.getValue(3).takesBlanksAfter)
    }

    @Test
    fun `a token once special stays text, whatever is said of it later`() {
        val added = AddedTokens(emptyMap())
        added.add(listOf(token("<x>", isSpecial = true)))
        added.add(listOf(token("<x>")))
        assertEquals(emptyMap(), added.specialTokens())
        assertEquals(listOf("a<x>"), finder(added).cut("a<x>").map { it.text })
    }

    @Test
    fun `the longest token at a place counts, and a control token hides what is in it`() {
        val tokens = arrayOf(
            token("<t"), token("<to>"), token("<tool>"), token("<s>", isSpecial = true), token("s>"),
        )
        assertEquals(listOf<Any>(2, 1, 0, "ool", 0), cut("<tool><to><tool<t", *tokens))
        assertEquals(listOf<Any>("<s>", 4, "<"), cut("<s>s><", *tokens))
    }

    @Test
    fun `blanks belong to the token that takes them first`() {
        val after = token("<x>", after = true)
        assertEquals(listOf<Any>(0, "c"), cut("<x> \n c", after))
        // A token of blanks is found in what was taken, unless it takes blanks before it itself.
        assertEquals(listOf<Any>(0, 1, "c"), cut("<x>\nc", after, token("\n")))
        assertEquals(listOf<Any>(0, "c", 1), cut("<x>\nc\n", after, token("\n", before = true)))
        assertEquals(listOf<Any>(0, 1, "c"), cut("<x>  bc", after, token(" b", before = true)))
        assertEquals(listOf<Any>(0, 1), cut("a  <x>", token("a "), token("<x>", before = true)))
    }

    @Test
    fun `what is found is what trying every token finds`() {
        val random = Random(3)
        repeat(300) {
            fun text(most: Int) =
                String(CharArray(1 + random.nextInt(most)) { "ab<\uD83D\uDE00".random(random) })
            val tokens = List(1 + random.nextInt(20)) { text(4) }.distinct()
            val searched = text(40)
            val expected = ArrayList<Any>()
            var rest = searched
            while (rest.isNotEmpty()) {
                val found = tokens.filter { rest.startsWith(it) }.maxByOrNull { it.length }
                val last = expected.lastOrNull()
                when {
                    found != null -> expected.add(tokens.indexOf(found))
                    last is String -> expected[expected.size - 1] = last + rest[0]
                    else -> expected.add(rest.take(1))
                }
                rest = rest.drop(found?.length ?: 1)
            }
            assertEquals(expected, cut(searched, *tokens.map { token(it) }.toTypedArray()))
        }
    }

    @Test
    fun `tens of thousands of tokens that begin alike cost no more than a few`() {
        val tokens = Array(30_000) { token("<custom_token_$it>") }
        val text = "<custom_token_7><custom_token_x".repeat(20_000)
        val begun = System.nanoTime()
        assertEquals(List(20_000) { listOf(7, "<custom_token_x") }.flatten(), cut(text, *tokens))
        AddedTokens(emptyMap()).apply { tokens.forEach { add(listOf(it)) } }
        // Trying each of them at each place takes thousands of millions of comparisons.
        assertTrue(System.nanoTime() - begun < 4_000_000_000, "it took more than 4 s")
    }
}
