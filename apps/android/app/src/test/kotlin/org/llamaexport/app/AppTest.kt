package org.llamaexport.app

import android.app.Activity
import android.app.ActivityManager
import android.app.AlertDialog
import android.app.Dialog
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.ListView
import android.widget.TextView
import java.io.File
import java.time.Duration
import org.junit.Before
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowDialog

private const val WAIT_MS = 20_000L

/** The app with engines of a test's own. */
class TestApp : LlamaApp() {
    val fake = FakeEngines()
    var real: Engines? = null
    override val engines: Engines get() = real ?: fake

    /** As a new process would begin: with what is on the storage. */
    fun restart() {
        parts = Parts(this, engines)
        parts.begin()
    }
}

/** What the tests of screens have: an app, hands and eyes. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], qualifiers = "w411dp-h891dp-xhdpi", application = TestApp::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
abstract class AppTest {
    protected val app: TestApp get() = RuntimeEnvironment.getApplication() as TestApp
    protected val parts: Parts get() = app.parts
    protected val fake: FakeEngines get() = app.fake

    /** Robolectric's phone has no memory at all. */
    @Before
    fun giveMemory() {
        val memory = ActivityManager.MemoryInfo()
        memory.availMem = 4_000_000_000
        memory.totalMem = 8_000_000_000
        shadowOf(app.getSystemService(ActivityManager::class.java)).setMemoryInfo(memory)
    }

    protected inline fun <reified T : Activity> open(): ActivityController<T> =
        Robolectric.buildActivity(T::class.java).setup().also { settle() }

    /** Let the main thread do what waits for it. */
    protected fun settle() = shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(60))

    /** Let time pass on the main thread. */
    protected fun pass(ms: Long) = shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(ms))

    protected fun waitFor(what: String, isDone: () -> Boolean) {
        val end = System.currentTimeMillis() + WAIT_MS
        while (true) {
            settle()
            if (isDone()) return
            if (System.currentTimeMillis() > end) {
                throw AssertionError("waited for $what; the log: ${parts.log.read()}")
            }
            Thread.sleep(5)
        }
    }

    /** Put a model of the fake engines onto the phone and load it. */
    protected fun loadFake(name: String = "tiny", maxContext: Int = 2048, hasTurns: Boolean = true) {
        waitFor("the beginning") { parts.hasBegun }
        val place = File(parts.library.own, name)
        val folder = writeFakeBundle(place, maxContext = maxContext, hasTurns = hasTurns)
        parts.load(folder)
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    protected fun Activity.text(id: Int): String = requireViewById<TextView>(id).text.toString()

    protected fun Activity.click(id: Int) {
        requireViewById<View>(id).performClick()
        settle()
    }

    /** Click the button with these words. */
    protected fun View.clickWords(words: String) {
        val button = all().first { it is TextView && it.text.toString() == words && it.isShown }
        button.performClick()
        settle()
    }

    protected fun View.all(): List<View> {
        val group = this as? ViewGroup ?: return listOf(this)
        return listOf(this) + (0 until group.childCount).flatMap { group.getChildAt(it).all() }
    }

    /** All words that can be seen. */
    protected fun View.words(): String =
        all().filter { it is TextView && it.isShown }.joinToString("\n") { (it as TextView).text.toString() }

    protected fun Activity.words(): String = window.decorView.words()

    protected fun Activity.row(position: Int): View {
        val list = requireViewById<ListView>(R.id.turns)
        return list.getChildAt(position - list.firstVisiblePosition)
    }

    protected fun dialog(): Dialog = checkNotNull(ShadowDialog.getLatestDialog()) { "no dialog is shown" }

    protected fun press(button: Int) {
        (dialog() as AlertDialog).getButton(button).performClick()
        settle()
    }

    /** Send a message and wait for the whole answer. */
    protected fun Activity.chat(text: String) {
        requireViewById<TextView>(R.id.message).text = text
        click(R.id.send)
        waitFor("the answer") { parts.session.pending == null }
    }

    /** Draw a window into build/android/screens. */
    protected fun draw(view: View, name: String) {
        settle()
        val bitmap = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
        view.draw(Canvas(bitmap))
        val file = File(System.getProperty("llama.screens"), "$name.png")
        file.parentFile?.mkdirs()
        file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
    }
}
