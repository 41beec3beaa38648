package org.llamaexport.app

import android.app.Activity
import android.text.Layout
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.TextView
import java.io.File
import java.util.concurrent.Semaphore
import kotlin.test.assertTrue
import org.junit.Test
import org.robolectric.RuntimeEnvironment

private const val PROSE =
    "A lighthouse keeper lit the lamp every evening and wrote the names of the ships in a book.\n\n" +
        "One night a storm put out the lamp, and a boy from the village ran up the stairs with a candle."

private const val ARABIC =
    "كان حارس المنارة يشعل المصباح كل مساء، ويكتب أسماء السفن في دفتر قديم.\n\n" +
        "وفي ليلة عاصفة انطفأ المصباح (3 مرات)، فصعد ولد من القرية حاملًا شمعة إلى SmolLM2."

/** Every screen opens and is drawn, as light, dark, from right to left, with large letters, on a tablet. */
class ScreensTest : AppTest() {
    private fun inEveryWay(draw: (String) -> Unit) {
        for (way in WAYS) {
            RuntimeEnvironment.setQualifiers(way.qualifiers)
            RuntimeEnvironment.setFontScale(way.fontScale)
            draw(way.name)
        }
    }

    private inline fun <reified T : Activity> drawAll(
        name: String,
        crossinline isReady: (Activity) -> Boolean = { true },
    ) = inEveryWay { way ->
        val screen = open<T>()
        waitFor("the screen") { isReady(screen.get()) }
        draw(screen.get().window.decorView, "$name-$way")
        assertTouchable(screen.get())
        screen.pause().stop().destroy()
    }

    /** Whatever can be touched is large enough, and says what it is. */
    private fun assertTouchable(screen: Activity) {
        val least = (47 * screen.resources.displayMetrics.density).toInt()
        val all = screen.window.decorView.run { all() }
        val shown = all.filter { it.isShown && it.isClickable && it.width > 0 }
        for (view in shown.filter { it !is ViewGroup }) {
            val words = (view as? TextView)?.text.orEmpty() + (view as? EditText)?.hint.orEmpty() +
                view.contentDescription.orEmpty()
            assertTrue(words.isNotEmpty() || view.labelled(), "nothing says what $view is")
            assertTrue(view.height >= least, "${view.height} px is too low for $view ($words)")
        }
    }

    private fun View.labelled() = rootView.run { all() }.any { it.labelFor == id }

    private fun CharSequence?.orEmpty(): String = this?.toString() ?: ""

    @Test
    fun `the chat is drawn`() {
        loadFake("SmolLM2-135M-Instruct")
        fake.reply = { PROSE }
        parts.session.send("Tell me a story of a lighthouse, please, and make it a short one.")
        waitFor("the answer") { parts.session.pending == null }
        parts.session.draft("And then?")
        drawAll<ChatActivity>("chat")
    }

    @Test
    fun `a conversation in Arabic is drawn`() {
        RuntimeEnvironment.setQualifiers("ar-ldrtl-w411dp-h891dp-notnight-xhdpi")
        loadFake("SmolLM2-135M-Instruct", maxContext = 4096)
        fake.reply = { ARABIC }
        parts.session.send("احكِ لي قصة قصيرة عن منارة، من فضلك.")
        waitFor("the answer") { parts.session.pending == null }
        parts.session.send("What is `model.onnx`? 3.5 GB؟")
        waitFor("the answer") { parts.session.pending == null }
        parts.session.draft("ثم ماذا حدث؟")
        val screen = open<ChatActivity>().get()
        val text = screen.row(0).requireViewById<TextView>(R.id.text)
        assertTrue(text.layout.getParagraphDirection(0) == Layout.DIR_RIGHT_TO_LEFT)
        // The bubble of who asks stands at the end of the line, which is at the left here.
        assertTrue(text.left < screen.row(0).width / 4, "the bubble is at ${text.left}")
        draw(screen.window.decorView, "chat-arabic")
    }

    @Test
    fun `an answer that is being written is drawn`() {
        loadFake("SmolLM2-135M-Instruct")
        fake.gate = Semaphore(60)
        fake.reply = { PROSE }
        parts.session.send("Tell me a story.")
        waitFor("some letters") { parts.session.pending?.answer?.length == 60 }
        drawAll<ChatActivity>("answering")
        fake.gate?.release(10_000)
        waitFor("the end") { parts.session.pending == null }
    }

    @Test
    fun `an empty chat, and one that failed, are drawn`() {
        waitFor("the beginning") { parts.hasBegun }
        drawAll<ChatActivity>("first")
        val folder = writeFakeBundle(File(parts.library.own, "newer"), version = 3)
        parts.load(folder)
        waitFor("the failure") { parts.host.state is HostState.Failed }
        drawAll<ChatActivity>("failed") { "this app reads" in it.window.decorView.words() }
    }

    @Test
    fun `the models are drawn`() {
        loadFake("SmolLM2-135M-Instruct")
        writeFakeBundle(File(parts.library.own, "demo"))
        writeFakeBundle(File(parts.library.own, "cut-off")).resolve("model.onnx").writeBytes(ByteArray(10))
        File(parts.library.own, "Llama-3.2-1B.download").mkdirs()
        drawAll<ModelsActivity>("models") { "cut-off" in it.window.decorView.words() }
    }

    @Test
    fun `the conversations are drawn`() {
        loadFake()
        for (text in listOf("How do I cook rice?", "A poem of the sea", "What is the capital of France?")) {
            parts.session.send(text)
            waitFor("the answer") { parts.session.pending == null }
            parts.session.begin()
        }
        File(app.filesDir, "conversations/broken.json").writeText("{")
        drawAll<ConversationsActivity>("conversations") { "capital of France" in it.window.decorView.words() }
    }

    @Test
    fun `the settings are drawn`() {
        loadFake()
        drawAll<SettingsActivity>("settings")
    }

    @Test
    fun `the reports are drawn`() {
        loadFake()
        assertTrue(parts.reports.measure(isQuick = true))
        waitFor("the figures") { parts.reports.result != null }
        drawAll<ReportActivity>("report")
    }

    @Test
    fun `the download dialog is drawn`() = inEveryWay { way ->
        val screen = open<ModelsActivity>().get()
        screen.requireViewById<ViewGroup>(R.id.buttons).getChildAt(0).performClick()
        settle()
        draw(dialog().window!!.decorView, "download-$way")
        dialog().dismiss()
    }

    private class Way(val name: String, val qualifiers: String, val fontScale: Float)

    private companion object {
        val WAYS = listOf(
            Way("light", "en-w411dp-h891dp-notnight-xhdpi", 1f),
            Way("dark", "de-w411dp-h891dp-night-xhdpi", 1f),
            Way("rtl", "ar-ldrtl-w411dp-h891dp-notnight-xhdpi", 1f),
            Way("large", "es-w411dp-h891dp-notnight-xhdpi", 2f),
            Way("tablet", "en-w1024dp-h768dp-notnight-mdpi", 1f),
        )
    }
}
