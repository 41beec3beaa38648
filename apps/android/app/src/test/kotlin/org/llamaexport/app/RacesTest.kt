package org.llamaexport.app

import android.app.AlertDialog
import android.content.ComponentCallbacks2
import android.view.View
import android.widget.EditText
import android.widget.ListView
import java.io.File
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.BundleAddress
import org.llamaexport.core.EngineError
import org.robolectric.shadows.ShadowDialog
import org.robolectric.shadows.ShadowToast

/** Two things at once, or one thing at the wrong moment. */
class RacesTest : AppTest() {
    /** Begin to load a model that waits for the end of [whileLoading]. */
    private fun loading(name: String = "slow", whileLoading: () -> Unit) {
        waitFor("the beginning") { parts.hasBegun }
        val goesOn = CountDownLatch(1)
        fake.onOpen = { goesOn.await(20, TimeUnit.SECONDS) }
        parts.load(writeFakeBundle(File(parts.library.own, name)))
        try {
            whileLoading()
        } finally {
            goesOn.countDown()
        }
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `a model that is being loaded is not deleted`() = loading {
        val screen = open<ModelsActivity>().get()
        waitFor("the row") { "being loaded" in screen.words() }
        screen.window.decorView.clickWords("Delete")
        assertNull(ShadowDialog.getLatestDialog())
        assertTrue("busy" in ShadowToast.getTextOfLatestToast())
    }

    @Test
    fun `a model whose loading began while the question stood there is not deleted`() {
        waitFor("the beginning") { parts.hasBegun }
        val folder = writeFakeBundle(File(parts.library.own, "slow"))
        val screen = open<ModelsActivity>().get()
        waitFor("the row") { "slow" in screen.words() }
        screen.window.decorView.clickWords("Delete")
        loading {
            press(AlertDialog.BUTTON_POSITIVE)
            assertTrue("busy" in ShadowToast.getTextOfLatestToast())
        }
        assertTrue(File(folder, "manifest.json").isFile)
    }

    @Test
    fun `of two models of one name, the loaded one is known by its folder`() {
        loadFake("twin")
        val pushed = File(checkNotNull(app.getExternalFilesDir("models")), "twin")
        writeFakeBundle(pushed)
        val screen = open<ModelsActivity>().get()
        waitFor("the rows") { "Unload" in screen.words() && "Load\n" in screen.words() }
        parts.delete(pushed) {}
        waitFor("the end of its files") { !pushed.exists() }
        assertTrue(parts.host.state is HostState.Ready)
        assertEquals(1, fake.openCount)
    }

    @Test
    fun `a model that is deleted is offered no more`() {
        loadFake()
        var isGone = false
        parts.delete(File(parts.library.own, "tiny")) { isGone = it }
        waitFor("the end of its files") { isGone }
        val words = open<ChatActivity>().get().words()
        assertTrue("No model is loaded. Choose one" in words, words)
        assertFalse("tiny is not loaded" in words)
    }

    @Test
    fun `a message while a model is being loaded waits in its field`() = loading {
        val screen = open<ChatActivity>().get()
        screen.requireViewById<EditText>(R.id.message).setText("Hello")
        assertFalse(screen.requireViewById<View>(R.id.send).isEnabled)
        assertFalse(parts.session.send("Hello"))
        assertEquals("Hello", screen.text(R.id.message))
        assertTrue("Loading slow" in parts.host.state.let { screen.subtitle() })
    }

    private fun ChatActivity.subtitle(): String =
        requireViewById<android.widget.Toolbar>(R.id.toolbar).subtitle.toString()

    @Test
    fun `a message while the model is measured is told why it waits`() {
        loadFake()
        val goesOn = CountDownLatch(1)
        assertTrue(parts.host.work("measure", { _, _ -> goesOn.await(20, TimeUnit.SECONDS) }) {})
        val screen = open<ChatActivity>().get()
        screen.requireViewById<EditText>(R.id.message).setText("Hello")
        screen.click(R.id.send)
        assertTrue("busy" in ShadowToast.getTextOfLatestToast())
        assertEquals("Hello", screen.text(R.id.message))
        goesOn.countDown()
        waitFor("the end") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `two taps on a download fetch one, and the second's words stay`() {
        waitFor("the beginning") { parts.hasBegun }
        val goesOn = CountDownLatch(1)
        val wait = { _: String ->
            goesOn.await(20, TimeUnit.SECONDS)
            null
        }
        TestServer(writeFakeBundle(File(app.cacheDir, "b")), before = wait).use { server ->
            val screen = open<ModelsActivity>().get()
            for (name in listOf("one", "two")) {
                screen.window.decorView.clickWords("Download")
                dialog().requireViewById<EditText>(R.id.place).setText(server.base)
                dialog().requireViewById<EditText>(R.id.name).setText(name)
                press(AlertDialog.BUTTON_POSITIVE)
            }
            assertEquals("one", parts.jobs.job?.name)
            val words = dialog().window!!.decorView.words()
            assertTrue(dialog().isShowing && "Another model is being fetched" in words, words)
            goesOn.countDown()
            waitFor("the download") { parts.jobs.job == null }
        }
    }

    @Test
    fun `while a model is fetched, another download is discarded at once, and none goes on`() {
        waitFor("the beginning") { parts.hasBegun }
        File(parts.library.own, "left.download").mkdirs()
        val goesOn = CountDownLatch(1)
        val wait = { _: String ->
            goesOn.await(20, TimeUnit.SECONDS)
            null
        }
        TestServer(writeFakeBundle(File(app.cacheDir, "b")), before = wait).use { server ->
            val screen = open<ModelsActivity>().get()
            assertTrue(parts.jobs.download(BundleAddress(server.base), "one"))
            waitFor("the row") { "left" in screen.words() }
            screen.window.decorView.clickWords("Go on")
            assertNull(ShadowDialog.getLatestDialog())
            assertTrue("Another model is being fetched" in ShadowToast.getTextOfLatestToast())
            screen.window.decorView.clickWords("Discard")
            waitFor("the end of the row") { "left" !in screen.words() }
            assertEquals("one", parts.jobs.job?.name)
            goesOn.countDown()
            waitFor("the download") { parts.jobs.job == null }
        }
    }

    @Test
    fun `an edited message that fails before a word of its answer is there to be sent`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("One")
        fake.onLetter = { throw EngineError("the runtime broke off", "") }
        assertTrue(parts.session.edit(0, "Three"))
        waitFor("the failure") { parts.session.pending == null }
        assertEquals("Three", screen.text(R.id.message))
        assertEquals("One", parts.session.conversation.turns[0].message.text)
    }

    @Test
    fun `a conversation is read on where it was left, and another one from its end`() {
        loadFake()
        fake.reply = { "line\n".repeat(60) }
        val screen = open<ChatActivity>()
        screen.get().chat("One")
        screen.get().chat("Two")
        val list = screen.get().requireViewById<ListView>(R.id.turns)
        list.setSelection(0)
        settle()
        assertEquals(0, list.firstVisiblePosition)
        screen.pause().stop()
        screen.restart().resume()
        settle()
        assertEquals(0, list.firstVisiblePosition)
        val other = open<ChatActivity>().get().requireViewById<ListView>(R.id.turns)
        assertEquals(3, other.lastVisiblePosition)
    }

    @Test
    fun `why a model could not be loaded stands there when the memory is short, too`() {
        waitFor("the beginning") { parts.hasBegun }
        parts.load(writeFakeBundle(File(parts.library.own, "newer"), version = 3))
        waitFor("the failure") { parts.host.state is HostState.Failed }
        @Suppress("DEPRECATION")
        app.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)
        assertTrue(parts.host.state is HostState.Failed)
    }

    @Test
    fun `a load that is refused does not count as one that the app died of`() {
        loadFake()
        val goesOn = CountDownLatch(1)
        assertTrue(parts.host.work("measure", { _, _ -> goesOn.await(20, TimeUnit.SECONDS) }) {})
        parts.load(writeFakeBundle(File(parts.library.own, "other")))
        assertEquals("", parts.settings.loading)
        goesOn.countDown()
        waitFor("the end") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `a draft that was taken back does not come again`() {
        loadFake()
        val screen = open<ChatActivity>()
        screen.get().requireViewById<EditText>(R.id.message).setText("Something")
        screen.pause().stop().destroy()
        val kept = File(app.filesDir, "conversations")
        waitFor("the file") { kept.list().orEmpty().size == 1 }
        val again = open<ChatActivity>()
        again.get().requireViewById<EditText>(R.id.message).setText("")
        again.pause().stop()
        waitFor("the end of the file") { kept.list().orEmpty().isEmpty() }
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        assertEquals("", parts.session.conversation.draft)
    }
}
