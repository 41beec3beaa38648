package org.llamaexport.app

import android.app.ActivityManager
import android.app.ActivityManager.RunningAppProcessInfo
import android.app.ApplicationExitInfo
import android.content.ComponentCallbacks2
import android.widget.EditText
import java.io.File
import java.util.concurrent.Semaphore
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.EngineError
import org.llamaexport.core.KeptConversation
import org.llamaexport.core.Tokenizer
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowActivityManager.ApplicationExitInfoBuilder

/** What is there after the process was killed, the memory went short, or a model failed. */
class SurvivalTest : AppTest() {
    private val turns get() = parts.session.conversation.turns.map { it.message.text }

    @Test
    fun `the conversation, the draft and the model are there in a new process`() {
        loadFake()
        val screen = open<ChatActivity>()
        screen.get().chat("Hello")
        screen.get().requireViewById<EditText>(R.id.message).setText("And then")
        screen.pause().stop()
        val id = parts.session.conversation.id
        waitFor("the file") { File(app.filesDir, "conversations/$id.json").readText().contains("And then") }
        app.restart()
        waitFor("the model") { parts.host.state is HostState.Ready && turns.isNotEmpty() }
        assertEquals(listOf("Hello", "You said: Hello."), turns)
        assertEquals("And then", open<ChatActivity>().get().text(R.id.message))
    }

    /** The last words of a conversation that is kept, or null. */
    private fun keptText(id: String): String? = parts.store.list().filterIsInstance<KeptConversation.Sound>()
        .firstOrNull { it.id == id }?.conversation?.turns?.lastOrNull()?.message?.text

    @Test
    fun `half an answer survives a kill, and a message without a word of it is typed again`() {
        loadFake()
        fake.gate = Semaphore(8)
        assertTrue(parts.session.send("Hello"))
        waitFor("some letters") { parts.session.pending?.answer == "You said" }
        parts.session.save()
        val id = parts.session.conversation.id
        waitFor("the file") { keptText(id) == "You said" }
        val old = fake.gate
        fake.gate = null
        app.restart()
        waitFor("the conversation") { turns.size == 2 }
        assertEquals(listOf("Hello", "You said"), turns)
        assertEquals(false, parts.session.conversation.turns[1].isWhole)
        val kept = parts.session.conversation
        val empty = kept.turns[1].copy(message = kept.turns[1].message.copy(text = ""))
        parts.store.save(kept.copy(turns = listOf(kept.turns[0], empty)))
        app.restart()
        waitFor("the draft") { parts.session.conversation.draft == "Hello" }
        assertEquals(emptyList(), turns)
        old?.release(10_000)
    }

    @Test
    fun `a model that the app died of is not loaded again by itself, and the user is told`() {
        loadFake()
        parts.settings.loading = File(parts.library.own, "tiny").path
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        assertTrue(parts.host.state is HostState.Idle)
        val screen = open<ChatActivity>().get()
        assertTrue("tiny was just being loaded" in screen.words(), screen.words())
        screen.window.decorView.clickWords("OK")
        screen.window.decorView.clickWords("Load")
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `an idle model goes when the memory is short, and comes back by a button`() {
        loadFake()
        val screen = open<ChatActivity>().get()
        @Suppress("DEPRECATION")
        app.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)
        waitFor("the end of the model") { fake.openCount == 0 }
        assertTrue("the system needed its memory" in screen.words(), screen.words())
        screen.window.decorView.clickWords("Load")
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `a model that writes stays when the memory is short`() {
        loadFake()
        fake.gate = Semaphore(0)
        parts.session.send("Hello")
        @Suppress("DEPRECATION")
        app.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)
        assertTrue(parts.host.state is HostState.Busy)
        fake.gate?.release(10_000)
        waitFor("the answer") { turns.size == 2 }
    }

    @Test
    fun `a model that cannot be loaded is said, with what to do`() {
        waitFor("the beginning") { parts.hasBegun }
        val error = EngineError("this app has not got an operator of the model", "Export it again.")
        fake.onOpen = { throw error }
        parts.load(writeFakeBundle(File(parts.library.own, "odd")))
        waitFor("the failure") { parts.host.state is HostState.Failed }
        val screen = open<ChatActivity>().get()
        assertTrue("has not got an operator" in screen.words() && "Export it again." in screen.words())
        fake.onOpen = { throw OutOfMemoryError("no more") }
        parts.load(File(parts.library.own, "odd"))
        waitFor("the words") { "not enough memory to load odd" in screen.words() }
    }

    @Test
    fun `a model that judges and cannot write is said to be one`() {
        waitFor("the beginning") { parts.hasBegun }
        val folder = writeFakeBundle(File(parts.library.own, "guard"))
        val manifest = File(folder, "manifest.json")
        val model = """"model":{"name":"guard","config":{"llama_export":{"head_tokens":[1,2]}}}"""
        manifest.writeText(manifest.readText().replace(""""model":{"name":"test"}""", model))
        parts.load(folder)
        waitFor("the failure") { parts.host.state is HostState.Failed }
        val error = (parts.host.state as HostState.Failed).error
        assertTrue("guard judges texts" in error.message.orEmpty(), error.message)
        assertEquals(0, fake.openCount)
    }

    @Test
    fun `memory that ends behind a loaded artifact takes it out again`() {
        app.real = object : Engines by fake {
            override fun openTokenizer(folder: File) = object : Tokenizer by LetterTokenizer {
                override val vocabSize: Int get() = throw OutOfMemoryError("no more")
            }
        }
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        parts.load(writeFakeBundle(File(parts.library.own, "odd")))
        waitFor("the failure") { parts.host.state is HostState.Failed }
        assertEquals(0, fake.openCount)
    }

    @Test
    fun `a changed file of a pushed bundle is found before it is loaded`() {
        waitFor("the beginning") { parts.hasBegun }
        val folder = writeFakeBundle(File(app.getExternalFilesDir("models"), "pushed"))
        File(folder, "model.onnx").writeBytes(ByteArray(4_200_000) { 2 })
        parts.load(folder)
        waitFor("the failure") { parts.host.state is HostState.Failed }
        val error = (parts.host.state as HostState.Failed).error
        assertTrue("other bytes than the manifest says" in error.message.orEmpty(), error.message)
        assertEquals(0, fake.openCount)
    }

    @Test
    fun `a full storage is said, and the conversation goes on`() {
        loadFake()
        val folder = File(app.filesDir, "conversations")
        folder.deleteRecursively()
        folder.writeText("no folder")
        val screen = open<ChatActivity>().get()
        screen.chat("Hello")
        waitFor("the words") { "cannot be kept" in screen.words() }
        assertEquals(listOf("Hello", "You said: Hello."), turns)
    }

    @Test
    fun `the reason of the last end is said in words`() {
        assertEquals(R.string.exit_memory, LastExit.wordsOf(ApplicationExitInfo.REASON_LOW_MEMORY, ""))
        val limiter = LastExit.wordsOf(ApplicationExitInfo.REASON_OTHER, "MemoryLimiter:AnonSwap")
        assertEquals(R.string.exit_memory, limiter)
        assertEquals(R.string.exit_native, LastExit.wordsOf(ApplicationExitInfo.REASON_CRASH_NATIVE, ""))
        assertNull(LastExit.wordsOf(ApplicationExitInfo.REASON_USER_REQUESTED, ""))
        val exit = ApplicationExitInfoBuilder.newBuilder().setTimestamp(System.currentTimeMillis())
            .setReason(ApplicationExitInfo.REASON_OTHER).setDescription("MemoryLimiter:AnonSwap")
            .setImportance(RunningAppProcessInfo.IMPORTANCE_FOREGROUND).build()
        shadowOf(app.getSystemService(ActivityManager::class.java)).addApplicationExitInfo(exit)
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ChatActivity>().get()
        assertTrue("to get memory" in screen.words() && "MemoryLimiter:AnonSwap" in screen.words())
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        assertNull(parts.lastExit, "it is said once")
    }

    @Test
    fun `a model is refused to every thread but its own`() {
        var model: GuardedModel? = null
        Thread { model = GuardedModel(FakeModel(fake, 64)) }.apply { start() }.join()
        assertFailsWith<IllegalStateException> { checkNotNull(model).step(intArrayOf(1), 0) }
        assertFailsWith<IllegalStateException> { checkNotNull(model).close() }
    }
}
