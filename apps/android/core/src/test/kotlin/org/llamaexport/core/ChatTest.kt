package org.llamaexport.core

import java.nio.FloatBuffer
import java.util.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

private const val BEGIN = 256
private const val END = 257
private val GREEDY = WriteSettings(Sampling(temperature = 0.0), 24)

/** Turns of two special tokens, as short as can be. */
private fun shortForm(): ChatFormat {
    fun around(letter: String) = Turn(listOf(TokenPiece(BEGIN), TextPiece(letter)), listOf(TokenPiece(END)))
    val turns = Turns(
        begin = emptyList(),
        noSystem = listOf(TextPiece("-")),
        system = around("s"),
        user = around("u"),
        assistant = around("a"),
        answer = listOf(TokenPiece(BEGIN), TextPiece("a")),
        trim = emptySet(),
    )
    return ChatFormat(turns, null)
}

class ChatTest {
    private open class Failing(context: Int) : RowModel(258, context) {
        var callsLeft = Int.MAX_VALUE

        override fun step(ids: IntArray, position: Int): FloatBuffer {
            callsLeft -= 1
            if (callsLeft >= 0) return super.step(ids, position)
            // It may have written some rows by then, or all of them.
            if (ids.size > 1) super.step(ids.copyOf(ids.size / 2), position)
            throw EngineError("the runtime failed", "")
        }
    }

    private val tokenizer = LetterTokenizer(listOf("begin", "end"))

    private fun generator(model: StepModel) = Generator(KeptCache(model), tokenizer, setOf(END))

    private fun chat(model: StepModel = RowModel(258, 512), system: String = "") =
        Chat(generator(model), shortForm(), system)

    private fun texts(chat: Chat) = chat.turns.map { it.text }

    @Test
    fun `a conversation grows, and only what is new is read`() {
        val model = RowModel(258, 512)
        val chat = chat(model, "brief")
        val first = chat.send("one", GREEDY)
        val before = chat.cached
        assertTrue(before in 1 until chat.length)
        val second = chat.send("two", GREEDY)
        assertTrue(second.stats.reusedTokens >= before)
        assertEquals(listOf("one", first.text, "two", second.text), texts(chat))
        assertEquals(chat.length, shortForm().encode(
            listOf(Message(Role.SYSTEM, "brief")) + chat.turns, tokenizer, asks = false,
        ).size)
    }

    @Test
    fun `every answer is that of a cache without a past`() {
        val chat = chat()
        chat.send("one", GREEDY)
        chat.send("two", GREEDY)
        val answer = chat.regenerate(GREEDY)
        val fresh = Chat(generator(RowModel(258, 512)), shortForm(), turns = chat.turns.take(2))
        assertContentEquals(fresh.send("two", GREEDY).ids, answer.ids)
    }

    @Test
    fun `answering again draws other numbers, and the seed counts up`() {
        val seeded = WriteSettings(Sampling(temperature = 1.5, topP = 1.0, seed = 10), 12)
        val chat = chat(RowModel(258, 512, steps = 4096f))
        val answers = listOf(chat.send("one", seeded), chat.regenerate(seeded), chat.regenerate(seeded))
        assertEquals(listOf(10L, 11L, 12L), answers.map { it.stats.seed })
        assertEquals(3, answers.map { it.ids.toList() }.toSet().size)
        assertEquals(listOf("one", answers[2].text), texts(chat))
    }

    @Test
    fun `an edit forgets what came after it`() {
        val chat = chat()
        for (text in listOf("one", "two", "three")) chat.send(text, GREEDY)
        val answer = chat.edit(2, "2", GREEDY)
        assertEquals(4, chat.turns.size)
        assertEquals(listOf("2", answer.text), texts(chat).drop(2))
        for (place in listOf(1, 4, -1)) {
            val error = assertFailsWith<PromptError> { chat.edit(place, "x", GREEDY) }
            assertContains(error.message.orEmpty(), "at place $place of 4")
        }
    }

    @Test
    fun `undoing gives the message back, and resetting keeps the system message`() {
        val chat = chat(system = "brief")
        chat.send("one", GREEDY)
        val kept = texts(chat)
        chat.send("two", GREEDY)
        assertEquals("two", chat.undo())
        assertEquals(kept, texts(chat))
        chat.reset()
        assertEquals(emptyList(), chat.turns)
        assertEquals("brief", chat.system)
        assertEquals(0, chat.length)
        assertEquals(0, chat.cached)
        assertFailsWith<PromptError> { chat.undo() }
        assertFailsWith<PromptError> { chat.regenerate(GREEDY) }
    }

    @Test
    fun `half an answer is kept, and none leaves no trace`() {
        val chat = chat()
        val stop = Stop()
        val half = chat.send("one", GREEDY, stop) { stop.request() }
        assertEquals(StopReason.INTERRUPTED, half.stats.stopReason)
        assertTrue(half.text.isNotEmpty())
        assertEquals(listOf("one", half.text), texts(chat))
        chat.send("two", GREEDY, Stop().apply { request() })
        assertEquals(listOf("one", half.text), texts(chat))
        chat.regenerate(GREEDY, Stop().apply { request() })
        assertEquals(listOf("one", half.text), texts(chat))
    }

    @Test
    fun `half an answer is kept when the runtime fails, or who shows it`() {
        val model = Failing(512)
        val chat = chat(model)
        model.callsLeft = 4
        assertFailsWith<EngineError> { chat.send("one", GREEDY) }
        assertEquals(2, chat.turns.size)
        model.callsLeft = 0
        assertFailsWith<EngineError> { chat.regenerate(GREEDY) }
        assertEquals(2, chat.turns.size)
        model.callsLeft = Int.MAX_VALUE
        assertFailsWith<IllegalStateException> { chat.send("two", GREEDY) { error("the screen is gone") } }
        assertEquals(4, chat.turns.size)
        assertTrue(chat.turns.last().text.isNotEmpty())
    }

    @Test
    fun `a context that is full is refused before anything is read`() {
        val model = RowModel(258, 96)
        val chat = chat(model)
        chat.send("one", GREEDY)
        val calls = model.calls.size
        val long = "x".repeat(60)
        val found = chat.overflow(long, GREEDY) ?: error("it fits")
        assertEquals(2, found.droppedTurns)
        val error = assertFailsWith<PromptError> { chat.send(long, GREEDY) }
        assertContains(error.message.orEmpty(), "${found.needed} tokens long, and the context has 96")
        assertContains(error.hint, "Drop the oldest turns")
        assertEquals(calls, model.calls.size)
        chat.dropOldest(2)
        chat.send(long, GREEDY)
        assertEquals(2, chat.turns.size)
        val longer = chat.overflow("x".repeat(90), GREEDY)
        assertEquals("Shorten the message, or choose a larger context.", longer?.hint)
        assertFailsWith<IllegalArgumentException> { chat.dropOldest(1) }
    }

    @Test
    fun `what is no message, and a conversation of another form, are refused`() {
        val chat = chat()
        for (text in listOf("", " \n", "\u3000")) assertFailsWith<PromptError> { chat.send(text, GREEDY) }
        val half = listOf(Message(Role.USER, "a"))
        assertFailsWith<PromptError> { Chat(generator(RowModel(258)), shortForm(), turns = half) }
        assertFailsWith<PromptError> { Chat(generator(RowModel(258)), shortForm(), turns = listOf(
            Message(Role.ASSISTANT, "a"), Message(Role.USER, "b"),
        )) }
        val plain = ChatFormat(null, "it is a base model")
        val error = assertFailsWith<PromptError> { Chat(generator(RowModel(258)), plain) }
        assertContains(error.message.orEmpty(), "it is a base model")
    }

    @Test
    fun `a system message is refused before the first question where there can be none`() {
        val turns = checkNotNull(shortForm().turns).copy(system = null)
        val without = ChatFormat(turns, null)
        val error = assertFailsWith<PromptError> { Chat(generator(RowModel(258)), without, "Be brief.") }
        assertContains(error.message.orEmpty(), "have no system message")
        val chat = Chat(generator(RowModel(258, 512)), without, " ")
        chat.send("a", GREEDY)
        assertFailsWith<PromptError> { chat.system = "Be brief." }
        assertEquals(" ", chat.system)
        assertEquals(4, chat.send("b", GREEDY).let { chat.turns.size })
    }

    @Test
    fun `another system message is read before the next answer`() {
        val chat = chat(system = "one")
        chat.send("a", GREEDY)
        chat.system = "two"
        val other = Chat(generator(RowModel(258, 512)), shortForm(), "two", chat.turns)
        assertContentEquals(other.send("b", GREEDY).ids, chat.send("b", GREEDY).ids)
        chat.system = " "
        assertEquals(0, chat.cached)
    }

    /** Whatever happens, the cache holds what its record says, and the next answer is right. */
    @Test
    fun `hundreds of cancels, edits, failures and rewinds leave a true cache`() {
        var cancelled = 0
        var failed = 0
        for (seed in 0L until 40) {
            val random = Random(seed)
            val model = Failing(700)
            val generator = generator(model)
            val chat = Chat(generator, shortForm())
            repeat(25) {
                model.callsLeft = if (random.nextInt(4) == 0) random.nextInt(6) else Int.MAX_VALUE
                try {
                    val reason = act(chat, generator, random).stats.stopReason
                    if (reason == StopReason.INTERRUPTED) cancelled += 1
                } catch (_: EngineError) {
                    failed += 1
                }
                val tokens = generator.cache.tokens
                val rows = IntArray(tokens.size) { mix(tokens[it], it) }
                assertContentEquals(rows, model.rows.copyOf(tokens.size), "seed $seed")
            }
            model.callsLeft = Int.MAX_VALUE
            val fresh = Chat(generator(RowModel(258, 700)), shortForm(), chat.system, chat.turns)
            assertContentEquals(fresh.send("end", GREEDY).ids, chat.send("end", GREEDY).ids, "seed $seed")
        }
        assertTrue(cancelled > 100, "$cancelled were cancelled")
        assertTrue(failed > 100, "$failed failed")
    }

    private fun act(chat: Chat, generator: Generator, random: Random): Completion {
        val letters = 1 + random.nextInt(if (random.nextInt(5) == 0) 200 else 9)
        val text = List(letters) { 'a' + random.nextInt(3) }.joinToString("")
        val stop = Stop()
        var left = if (random.nextInt(3) == 0) random.nextInt(5) else Int.MAX_VALUE
        val onPiece = { _: String -> if (left-- <= 0) stop.request() }
        val onProgress = { _: Int, _: Int -> if (left-- <= 0) stop.request() }
        if (left == 0) stop.request()
        if (random.nextInt(6) == 0) generator.cache.rewind(random.nextInt(generator.cache.position + 1))
        if (random.nextInt(9) == 0) chat.system = if (random.nextBoolean()) "" else text.take(4)
        while (chat.length > 400) chat.dropOldest(2)
        return when (if (chat.turns.isEmpty()) 0 else random.nextInt(5)) {
            0, 1 -> chat.send(text, GREEDY, stop, onProgress, onPiece)
            2 -> chat.regenerate(GREEDY, stop, onProgress, onPiece)
            3 -> chat.edit(2 * random.nextInt(chat.turns.size / 2), text, GREEDY, stop, onProgress, onPiece)
            else -> {
                chat.undo()
                chat.send(text, GREEDY, stop, onProgress, onPiece)
            }
        }
    }
}
