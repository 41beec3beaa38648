package org.llamaexport.app

import android.app.AlertDialog
import android.content.ClipboardManager
import android.view.View
import android.widget.EditText
import android.widget.ImageButton
import java.util.concurrent.Semaphore
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.EngineError

class ChatScreenTest : AppTest() {
    private val turns get() = parts.session.conversation.turns.map { it.message.text }

    /** Send a message whose answer stops for a test's permits. */
    private fun ChatActivity.begin(text: String, letters: Int) {
        fake.gate = Semaphore(letters)
        requireViewById<EditText>(R.id.message).setText(text)
        click(R.id.send)
        waitFor("the first letters") { parts.session.pending?.answer?.length == letters }
    }

    private fun goOn() {
        fake.gate?.release(10_000)
        waitFor("the end of the answer") { parts.session.pending == null }
    }

    @Test
    fun `a message is answered, with figures under the answer`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("Hello")
        assertEquals(listOf("Hello", "You said: Hello."), turns)
        val answer = screen.row(1).words()
        assertTrue("16 tokens" in answer && "context 24 of 2048" in answer && "first after" in answer, answer)
        assertEquals("Hello", screen.requireViewById<android.widget.Toolbar>(R.id.toolbar).title)
        assertEquals("", screen.text(R.id.message))
    }

    @Test
    fun `an answer goes on while the screen is turned`() {
        loadFake()
        val screen = open<ChatActivity>()
        screen.get().begin("Hello", letters = 6)
        screen.recreate()
        settle()
        assertTrue("You sa" in screen.get().words(), screen.get().words())
        goOn()
        assertEquals(listOf("Hello", "You said: Hello."), turns)
        assertTrue("You said: Hello." in screen.get().words())
    }

    @Test
    fun `a stopped answer is kept as far as it was, and said to be cut`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.begin("Hello", letters = 8)
        assertEquals("Stop", screen.requireViewById<ImageButton>(R.id.send).contentDescription)
        pass(ms = 400)
        screen.click(R.id.send)
        goOn()
        assertTrue(turns[1].startsWith("You said") && turns[1].length < 16, turns[1])
        assertTrue("Cut short" in screen.row(1).words())
        assertFalse(parts.session.conversation.turns[1].isWhole)
    }

    @Test
    fun `two taps send one message`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        fake.gate = Semaphore(0)
        screen.requireViewById<EditText>(R.id.message).setText("Hello")
        val button = screen.requireViewById<View>(R.id.send)
        button.performClick()
        // By now it is the button that stops.
        button.performClick()
        assertFalse(parts.session.send("Hello"))
        assertFalse(parts.session.regenerate())
        goOn()
        assertEquals(listOf("Hello", "You said: Hello."), turns)
        assertEquals(View.GONE, screen.requireViewById<View>(R.id.empty).visibility)
    }

    @Test
    fun `an edited message is answered anew, and what followed it is forgotten`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("One")
        screen.chat("Two")
        screen.requireViewById<android.widget.ListView>(R.id.turns).setSelection(0)
        settle()
        screen.row(0).requireViewById<View>(R.id.edit).performClick()
        settle()
        val field = dialog().window!!.decorView.all().filterIsInstance<EditText>().first()
        assertEquals("One", field.text.toString())
        field.setText("Three")
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the answer") { parts.session.pending == null }
        assertEquals(listOf("Three", "You said: Three."), turns)
    }

    @Test
    fun `an answer is written again in its place`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("One")
        fake.reply = { "Something else." }
        screen.row(1).requireViewById<View>(R.id.again).performClick()
        waitFor("the answer") { parts.session.pending == null && turns[1] != "You said: One." }
        assertEquals(listOf("One", "Something else."), turns)
    }

    @Test
    fun `an answer is copied`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("One")
        screen.row(1).requireViewById<View>(R.id.copy).performClick()
        val clip = screen.getSystemService(ClipboardManager::class.java)!!.primaryClip!!
        assertEquals("You said: One.", clip.getItemAt(0).text.toString())
    }

    @Test
    fun `what does not fit is asked about, and the oldest turns can go`() {
        loadFake(maxContext = 128)
        val screen = open<ChatActivity>().get()
        screen.chat("a".repeat(30))
        fake.reply = { "Good." }
        screen.chat("b".repeat(40))
        val full = checkNotNull(parts.session.full)
        assertEquals("b".repeat(40), full.question)
        draw(dialog().window!!.decorView, "dialog-context-full")
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the answer") { parts.session.pending == null && turns.size == 2 }
        assertEquals(listOf("b".repeat(40), "Good."), turns)
        assertEquals("", parts.session.conversation.draft)
    }

    @Test
    fun `what does not fit can be shortened, or begun anew beside the old conversation`() {
        loadFake(maxContext = 128)
        val screen = open<ChatActivity>().get()
        screen.chat("a".repeat(30))
        screen.chat("b".repeat(40))
        press(AlertDialog.BUTTON_NEGATIVE)
        assertEquals("b".repeat(40), screen.text(R.id.message))
        assertEquals(2, turns.size)
        val old = parts.session.conversation.id
        screen.click(R.id.send)
        waitFor("the dialog") { parts.session.full != null }
        fake.reply = { "Good." }
        press(AlertDialog.BUTTON_NEUTRAL)
        waitFor("the answer") { parts.session.pending == null && turns.size == 2 }
        assertEquals(listOf("b".repeat(40), "Good."), turns)
        assertTrue(old != parts.session.conversation.id)
        assertEquals(2, parts.store.load(old).turns.size)
    }

    @Test
    fun `nothing is lost where what did not fit cannot be asked any more`() {
        loadFake(maxContext = 128)
        val screen = open<ChatActivity>().get()
        screen.chat("a".repeat(30))
        screen.chat("b".repeat(40))
        parts.host.unload()
        press(AlertDialog.BUTTON_POSITIVE)
        assertEquals(2, turns.size)
        assertEquals("b".repeat(40), screen.text(R.id.message))
    }

    @Test
    fun `an engine that fails in the middle leaves half an answer and words`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        fake.onLetter = { if (it == 5) throw EngineError("the runtime broke off", "Load the model again.") }
        screen.chat("Hello")
        assertEquals(listOf("Hello", "You s"), turns)
        assertTrue("Details: The runtime broke off. Load the model again." in screen.words(), screen.words())
        fake.onLetter = {}
        screen.window.decorView.clickWords("OK")
        assertNull(parts.session.problem)
    }

    @Test
    fun `memory that ends before the first letter gives the message back`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        fake.onLetter = { throw OutOfMemoryError("no more") }
        screen.chat("Hello")
        assertEquals(emptyList(), turns)
        assertEquals("Hello", screen.text(R.id.message))
        assertTrue("not enough memory" in screen.words(), screen.words())
        assertTrue("OutOfMemoryError" in parts.report(parts.log.read()))
    }

    @Test
    fun `a model without turns continues texts, and says so`() {
        loadFake(hasTurns = false)
        val screen = open<ChatActivity>().get()
        assertTrue("it is a base model" in screen.words(), screen.words())
        assertTrue(parts.session.send("Hello"))
        waitFor("the end") { parts.session.pending == null }
    }

    @Test
    fun `no call of the model is made on the main thread`() {
        loadFake()
        open<ChatActivity>().get().chat("Hello")
        parts.host.unload()
        waitFor("the end of the model") { fake.openCount == 0 }
        assertEquals(setOf("model"), fake.threads.toSet())
    }

    @Test
    fun `a screen reader hears sentences`() {
        val said = ArrayList<String>()
        val speaker = SentenceSpeaker { said += it }
        val whole = "One two. Three is 3.5 long! And the rest"
        for (end in 1..whole.length) speaker.update(whole.take(end))
        speaker.end(whole)
        assertEquals(listOf("One two.", "Three is 3.5 long!", "And the rest"), said)
    }
}
