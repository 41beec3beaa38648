package org.llamaexport.app

import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.net.Uri
import android.widget.EditText
import java.io.ByteArrayOutputStream
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test
import org.llamaexport.core.Bundle
import org.llamaexport.core.JsonObject
import org.llamaexport.core.Sampling
import org.llamaexport.core.StepModel
import org.llamaexport.core.parseJson
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowToast

/** Conversations, settings, reports; and a chat with a real model. */
class OtherScreensTest : AppTest() {
    private fun SettingsActivity.type(id: Int, text: String) = requireViewById<EditText>(id).setText(text)

    /** What was handed to the system's list of apps to send it with. */
    private fun Activity.sent(): Intent {
        val chooser = shadowOf(this).nextStartedActivity
        @Suppress("DEPRECATION")
        return checkNotNull(chooser.getParcelableExtra(Intent.EXTRA_INTENT))
    }

    /** Choose a place for the file that a screen asks one for, and return what it writes there. */
    private fun Activity.saved(): String {
        val asked = shadowOf(this).nextStartedActivityForResult
        assertEquals(Intent.ACTION_CREATE_DOCUMENT, asked.intent.action)
        val place = Uri.parse("content://files/" + asked.intent.getStringExtra(Intent.EXTRA_TITLE))
        val written = ByteArrayOutputStream()
        shadowOf(app.contentResolver).registerOutputStream(place, written)
        shadowOf(this).receiveResult(asked.intent, Activity.RESULT_OK, Intent().setData(place))
        waitFor("the file") { ShadowToast.getTextOfLatestToast() == "Saved" }
        ShadowToast.reset()
        return written.toString()
    }

    @Test
    fun `what is too long for another app's buffer can be saved`() {
        loadFake()
        fake.reply = { "ja ".repeat(250) }
        val screen = open<ChatActivity>().get()
        parts.session.send("Hello")
        waitFor("the answer") { parts.session.pending == null }
        val kept = parts.session.conversation
        parts.session.begin()
        parts.store.save(kept.copy(turns = List(600) { kept.turns[it % 2] }))
        screen.finish()
        val list = open<ConversationsActivity>().get()
        waitFor("the row") { "600 messages" in list.words() }
        list.window.decorView.clickWords("Share")
        assertTrue("too long to be shared" in ShadowToast.getTextOfLatestToast())
        assertNull(shadowOf(list).nextStartedActivity)
    }

    @Test
    fun `conversations are renamed, shared, opened and deleted`() {
        loadFake()
        open<ChatActivity>().get().chat("One")
        val first = parts.session.conversation.id
        parts.session.begin()
        val screen = open<ConversationsActivity>().get()
        waitFor("the row") { "2 messages" in screen.words() }
        screen.window.decorView.clickWords("Rename")
        dialog().window!!.decorView.all().filterIsInstance<EditText>().first().setText("Uno")
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the name") { "Uno" in screen.words() }
        screen.window.decorView.clickWords("Share")
        val shared = screen.sent().getStringExtra(Intent.EXTRA_TEXT)
        assertTrue("[user]\nOne" in shared.orEmpty(), shared)
        screen.window.decorView.clickWords("Export")
        assertEquals(shared, screen.saved())
        screen.window.decorView.clickWords("Open")
        waitFor("the conversation") { parts.session.conversation.id == first }
        val again = open<ConversationsActivity>().get()
        waitFor("the row") { "Uno" in again.words() }
        again.window.decorView.clickWords("Delete")
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("nothing") { "is kept here" in again.words() }
        assertTrue(parts.session.conversation.id != first)
    }

    @Test
    fun `settings are checked as Python checks them, and what was typed stays`() {
        loadFake()
        val screen = open<SettingsActivity>().get()
        screen.type(R.id.temperature, "-1")
        screen.type(R.id.top_p, "2")
        screen.window.decorView.clickWords("Save")
        val words = screen.words()
        assertTrue("temperature >= 0, found -1.0" in words && "0 < top-p <= 1, found 2.0" in words, words)
        screen.type(R.id.top_k, "many")
        screen.window.decorView.clickWords("Save")
        assertTrue("expected a whole number, found “many”" in screen.words(), screen.words())
        assertEquals(Sampling(), parts.session.conversation.sampling)
        screen.type(R.id.temperature, "0,5")
        screen.type(R.id.top_p, "0.9")
        screen.type(R.id.top_k, "40")
        screen.type(R.id.seed, "7")
        screen.type(R.id.min_p, "0.05")
        screen.type(R.id.repetition_penalty, "1.1")
        screen.type(R.id.max_tokens, "77")
        screen.type(R.id.context_tokens, "512")
        screen.type(R.id.system, "Be brief.")
        screen.window.decorView.clickWords("Save")
        val wanted = Sampling(0.5, 0.9, topK = 40, seed = 7, minP = 0.05, repetitionPenalty = 1.1)
        assertEquals(wanted, parts.session.conversation.sampling)
        assertTrue(screen.isFinishing)
        app.restart()
        assertEquals(wanted, parts.session.conversation.sampling)
        assertEquals("Be brief.", parts.session.conversation.system)
        assertEquals(listOf(77, 512), listOf(parts.settings.maxTokens, parts.settings.contextTokens))
    }

    @Test
    fun `a system prompt is kept for other models where this one has no place for it`() {
        waitFor("the beginning") { parts.hasBegun }
        parts.load(writeFakeBundle(File(parts.library.own, "guard"), hasSystem = false))
        waitFor("the model") { parts.host.state is HostState.Ready }
        parts.session.configure("Be brief.", Sampling())
        val screen = open<SettingsActivity>().get()
        assertFalse(screen.requireViewById<EditText>(R.id.system).isEnabled)
        assertTrue("guard has no place for a system prompt" in screen.words(), screen.words())
        screen.window.decorView.clickWords("Save")
        assertEquals("Be brief.", parts.session.conversation.system)
        val chat = open<ChatActivity>().get()
        chat.chat("Hello")
        waitFor("the answer's words") { "You said: Hello." in chat.words() }
    }

    @Test
    fun `a benchmark ends in a report that can be shared, and the model is there again`() {
        loadFake()
        val screen = open<ReportActivity>().get()
        screen.window.decorView.clickWords("Quick benchmark")
        waitFor("the figures") { parts.reports.result != null }
        val json = parseJson(checkNotNull(parts.reports.result?.json), "report") as JsonObject
        val keys = listOf("bundle", "machine", "load_s", "prefill", "decode", "device")
        assertTrue(json.entries.keys.containsAll(keys))
        screen.window.decorView.clickWords("Share")
        val sent = screen.sent()
        assertEquals("application/json", sent.type)
        assertEquals(parts.reports.result?.json, sent.getStringExtra(Intent.EXTRA_TEXT))
        screen.window.decorView.clickWords("Save as a file")
        assertEquals(parts.reports.result?.json, screen.saved())
        assertTrue(parts.host.state is HostState.Ready)
        assertEquals(1, fake.openCount)
    }

    @Test
    fun `a bundle without golden data says so`() {
        loadFake()
        val screen = open<ReportActivity>().get()
        screen.window.decorView.clickWords("Verify on this phone")
        waitFor("the verdict") { parts.reports.result != null }
        assertTrue("no answers to compare with" in screen.words(), screen.words())
    }

    /** Load the demo's bundle on real engines; leave the test where this machine has not made it. */
    private fun loadDemo(engines: Engines = DeviceEngines, needs: String = "manifest.json") {
        val bundle = File(System.getProperty("llama.fixtures"), "demo/onnx")
        assumeTrue("the demo was not made on this machine", File(bundle, needs).isFile)
        app.real = engines
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        bundle.copyRecursively(File(parts.library.own, "demo"))
        parts.load(File(parts.library.own, "demo"))
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `the demo bundle writes on the real engine`() {
        loadDemo()
        parts.settings.maxTokens = 24
        val screen = open<ChatActivity>().get()
        screen.chat("Once upon a time")
        assertNull(parts.session.problem)
        val answer = parts.session.conversation.turns[1]
        val figures = checkNotNull(answer.figures)
        assertTrue(answer.message.text.length > 10 && figures.tokensPerS > 0, "$answer")
        draw(screen.window.decorView, "demo")
    }

    @Test
    fun `the demo bundle is verified, and the report can be shared`() {
        loadDemo(needs = "golden.json")
        val screen = open<ReportActivity>().get()
        screen.window.decorView.clickWords("Verify on this phone")
        waitFor("the verdict") { parts.reports.result != null }
        assertTrue("This phone computes the model right" in screen.words(), screen.words())
        val json = parseJson(checkNotNull(parts.reports.result?.json), "report") as JsonObject
        assertTrue("manifest_sha256" in json.entries && "positions" in json.entries)
        draw(screen.window.decorView, "verified")
    }

    @Test
    fun `a phone that reads other tokens is not verified`() {
        val wrong = object : Engines by DeviceEngines {
            override fun openEngine(bundle: Bundle, contextTokens: Int): StepModel {
                val model = DeviceEngines.openEngine(bundle, contextTokens)
                return object : StepModel by model {
                    override fun step(ids: IntArray, position: Int) =
                        model.step(IntArray(ids.size) { (ids[it] + 1) % vocabSize }, position)
                }
            }
        }
        loadDemo(wrong, needs = "golden.json")
        val screen = open<ReportActivity>().get()
        screen.window.decorView.clickWords("Verify on this phone")
        waitFor("the verdict") { parts.reports.result != null }
        assertTrue("computes the model wrongly" in screen.words() && "First out of bounds" in screen.words())
        draw(screen.window.decorView, "not-verified")
    }
}
