package org.llamaexport.app

import android.os.PowerManager
import android.view.View
import android.widget.EditText
import java.util.concurrent.Semaphore
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.AnswerFigures
import org.robolectric.Shadows.shadowOf

/** What is shown, and said, of an answer while it is written and after it. */
class AnswersTest : AppTest() {
    @Test
    fun `a long message is seen to be read, and comes back when that is stopped`() {
        loadFake()
        val pieces = Semaphore(1)
        fake.onStep = { pieces.acquire() }
        val screen = open<ChatActivity>().get()
        val text = "word ".repeat(80).trim()
        screen.requireViewById<EditText>(R.id.message).setText(text)
        screen.click(R.id.send)
        waitFor("the first piece") { "Reading 128 of" in screen.words() }
        assertEquals("", screen.text(R.id.message))
        pass(ms = 400)
        screen.click(R.id.send)
        pieces.release(100)
        waitFor("the stop") { parts.session.pending == null }
        assertEquals(text, screen.text(R.id.message))
        assertEquals(0, parts.session.conversation.turns.size)
        fake.onStep = {}
        screen.chat(text)
        assertEquals(2, parts.session.conversation.turns.size)
    }

    @Test
    fun `memory that nobody knows is left out, and heat is said`() {
        loadFake()
        shadowOf(app.getSystemService(PowerManager::class.java))
            .setCurrentThermalStatus(PowerManager.THERMAL_STATUS_MODERATE)
        val screen = open<ChatActivity>().get()
        screen.chat("Hello")
        val answer = screen.row(1).words()
        // Robolectric's system says that the app takes nothing.
        assertTrue("heat: moderate" in answer && "memory" !in answer, answer)
        val known = AnswerFigures(5, 2.0, 0.5, 40, 128, memoryBytes = 1_200_000_000)
        assertTrue("memory 1.2 GB" in app.figuresText(known))
        assertFalse("heat" in app.figuresText(known))
    }

    @Test
    fun `an answer is no longer than it may be, and is said to be cut`() {
        loadFake()
        parts.settings.maxTokens = 4
        val screen = open<ChatActivity>().get()
        screen.chat("Hello")
        assertEquals("You ", parts.session.conversation.turns[1].message.text)
        assertTrue("Cut short" in screen.row(1).words())
    }

    @Test
    fun `the system prompt of the settings is read before the message`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("Hello")
        val without = parts.session.conversation.turns[1].figures?.contextTokens ?: 0
        parts.session.begin()
        parts.session.configure("Be brief.", parts.session.conversation.sampling)
        screen.chat("Hello")
        val with = parts.session.conversation.turns[1].figures?.contextTokens ?: 0
        // A letter is a token, and its turn begins and ends with one.
        assertEquals("Be brief.".length + 2, with - without)
    }

    @Test
    fun `a screen reader is told that the model answers, and then the answer`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        val spoken = screen.requireViewById<View>(R.id.spoken)
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, spoken.accessibilityLiveRegion)
        fake.gate = Semaphore(0)
        fake.reply = { "Good day." }
        screen.requireViewById<EditText>(R.id.message).setText("Hello")
        screen.click(R.id.send)
        assertEquals("The model is answering", screen.text(R.id.spoken))
        fake.gate?.release(10_000)
        waitFor("the answer") { parts.session.pending == null }
        assertEquals("Good day.", screen.text(R.id.spoken))
    }
}
