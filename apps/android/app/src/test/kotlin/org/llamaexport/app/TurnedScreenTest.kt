package org.llamaexport.app

import android.app.AlertDialog
import android.view.View
import android.widget.EditText
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.Test
import org.robolectric.android.controller.ActivityController

/** What is asked, and typed, is there again after the screen was turned, and nothing is left open. */
class TurnedScreenTest : AppTest() {
    private fun ActivityController<*>.turn() {
        val old = dialog()
        recreate()
        settle()
        assertFalse(old.isShowing, "the dialog of a screen that is gone is still there")
        assertTrue(dialog() !== old && dialog().isShowing, "the dialog is gone")
    }

    private fun field(id: Int): EditText = dialog().requireViewById(id)

    @Test
    fun `a message that is being edited`() {
        loadFake()
        val screen = open<ChatActivity>()
        screen.get().chat("One")
        screen.get().row(0).requireViewById<View>(R.id.edit).performClick()
        settle()
        field(R.id.text).setText("Three")
        screen.turn()
        assertEquals("Three", field(R.id.text).text.toString())
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the answer") { parts.session.pending == null }
        assertEquals("Three", parts.session.conversation.turns[0].message.text)
    }

    @Test
    fun `a download that is being typed`() {
        waitFor("the beginning") { parts.hasBegun }
        val bundle = writeFakeBundle(File(app.cacheDir, "b"))
        TestServer(bundle, token = "secret").use { server ->
            val screen = open<ModelsActivity>()
            screen.get().window.decorView.clickWords("Download")
            field(R.id.place).setText(server.base)
            field(R.id.token).setText("secret")
            field(R.id.name).setText("far")
            screen.turn()
            press(AlertDialog.BUTTON_POSITIVE)
            assertFalse(dialog().isShowing)
            waitFor("the download") { parts.jobs.job == null && File(parts.library.own, "far").isDirectory }
        }
    }

    @Test
    fun `a name that is being typed, and a question whether to delete`() {
        loadFake()
        open<ChatActivity>().get().chat("One")
        val screen = open<ConversationsActivity>()
        waitFor("the row") { "2 messages" in screen.get().words() }
        screen.get().window.decorView.clickWords("Rename")
        field(R.id.text).setText("Uno")
        screen.turn()
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the name") { "Uno" in screen.get().words() }
        screen.get().window.decorView.clickWords("Delete")
        screen.turn()
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("nothing") { "is kept here" in screen.get().words() }
    }

    @Test
    fun `a question whether to load what is too large`() {
        waitFor("the beginning") { parts.hasBegun }
        writeFakeBundle(File(parts.library.own, "huge"), memory = parts.phone.availableBytes() * 2 to 0L)
        val screen = open<ModelsActivity>()
        waitFor("the row") { "huge" in screen.get().words() }
        screen.get().window.decorView.clickWords("Load")
        screen.turn()
        assertTrue("huge needs about" in dialog().window!!.decorView.words())
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `a screen that is gone asks nothing`() {
        loadFake()
        val screen = open<ModelsActivity>()
        screen.pause().stop().destroy()
        screen.get().ask(Ask.DELETE, android.os.Bundle())
        assertEquals(null, org.robolectric.shadows.ShadowDialog.getLatestDialog())
    }
}
