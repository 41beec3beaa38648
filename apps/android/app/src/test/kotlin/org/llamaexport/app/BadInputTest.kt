package org.llamaexport.app

import android.app.AlertDialog
import android.net.Uri
import android.provider.DocumentsContract
import android.widget.EditText
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.AppError
import org.llamaexport.core.BundleAddress
import org.llamaexport.core.ErrorKind
import org.llamaexport.core.Stop
import org.llamaexport.core.Tokenizer
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf

/** What goes wrong is said on the screen, in the user's language, and nothing is lost. */
class BadInputTest : AppTest() {
    private fun bundle() = writeFakeBundle(File(app.cacheDir, "b"))

    private fun download(server: TestServer, name: String = "far") {
        assertTrue(parts.jobs.download(BundleAddress(server.base), name))
        waitFor("the end of the download") { parts.jobs.job == null }
    }

    @Test
    fun `a download for which the storage has no room is said so, in numbers`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        val manifest = File(bundle(), "manifest.json").readText()
        val huge = manifest.replace("\"size_bytes\":4200000", "\"size_bytes\":4200000000000000")
        val lie = { name: String -> huge.toByteArray().takeIf { name == "manifest.json" } }
        TestServer(bundle(), before = lie).use { download(it) }
        val words = screen.words()
        assertTrue("The storage is full" in words && "more bytes of storage" in words, words)
    }

    @Test
    fun `bytes that are not the manifest's are deleted, and said so`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        val lie = { name: String -> ByteArray(4_200_000) { 3 }.takeIf { name == "model.onnx" } }
        TestServer(bundle(), before = lie).use { download(it) }
        assertTrue("were changed or damaged on the way" in screen.words(), screen.words())
        assertFalse(File(parts.library.own, "far.download/model.onnx").exists())
    }

    @Test
    fun `no network is said so`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        val server = TestServer(bundle())
        server.close()
        download(server)
        assertTrue("The connection failed" in screen.words(), screen.words())
    }

    @Test
    fun `a server that wants a token is given one, and the address need not be typed again`() {
        waitFor("the beginning") { parts.hasBegun }
        TestServer(bundle(), token = "secret").use { server ->
            val screen = open<ModelsActivity>().get()
            download(server)
            assertTrue("with an access token" in screen.words(), screen.words())
            waitFor("the row") { "The download did not end" in screen.words() }
            screen.window.decorView.clickWords("Go on")
            assertEquals(server.base, dialog().requireViewById<EditText>(R.id.place).text.toString())
            dialog().requireViewById<EditText>(R.id.token).setText("secret")
            press(AlertDialog.BUTTON_POSITIVE)
            waitFor("the download") { parts.jobs.job == null && File(parts.library.own, "far").isDirectory }
            assertNull(parts.jobs.error)
        }
    }

    @Test
    fun `half a zip, and half a folder, leave nothing behind`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        val half = bundle()
        File(half, "tokenizer.json").delete()
        val zip = ByteArrayOutputStream()
        ZipOutputStream(zip).use { out ->
            for (file in half.listFiles().orEmpty()) {
                out.putNextEntry(ZipEntry(file.name))
                out.write(file.readBytes())
            }
        }
        val place = Uri.parse("content://files/half.zip")
        shadowOf(app.contentResolver).registerInputStream(place, zip.toByteArray().inputStream())
        assertTrue(parts.jobs.importZip(place))
        waitFor("the end of the import") { parts.jobs.job == null }
        assertTrue("files are missing, or cut off" in screen.words(), screen.words())
        screen.window.decorView.clickWords("OK")
        assertTrue(parts.jobs.importFolder(FolderProvider.of(half)))
        waitFor("the end of the import") { parts.jobs.job == null }
        assertTrue("tokenizer.json is missing" in screen.words(), screen.words())
        assertEquals(emptyList(), parts.library.own.list().orEmpty().asList())
    }

    @Test
    fun `what an import left that the process did not outlive is deleted at the next start`() {
        waitFor("the beginning") { parts.hasBegun }
        val left = File(parts.library.own, "big.import/model.onnx")
        left.parentFile!!.mkdirs()
        left.writeBytes(ByteArray(10))
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        assertFalse(left.parentFile!!.exists())
    }

    @Test
    fun `who has the files is asked for their name on another thread`() {
        waitFor("the beginning") { parts.hasBegun }
        assertTrue(parts.jobs.importFolder(FolderProvider.of(bundle())))
        waitFor("the import") { parts.jobs.job == null }
        val zip = DocumentsContract.buildDocumentUri(FolderProvider.AUTHORITY, "root/none.zip")
        assertTrue(parts.jobs.importZip(zip))
        waitFor("the import") { parts.jobs.job == null }
        assertNotNull(parts.jobs.error)
        assertEquals(setOf("jobs"), FolderProvider.threads.toSet())
    }

    @Test
    fun `a tokenizer of another model is said so, and the message is there again`() {
        val other = object : Tokenizer by LetterTokenizer {
            override fun encode(text: String, continues: Boolean): IntArray = intArrayOf(VOCAB + 7)
        }
        fake.tokenizer = other
        loadFake()
        val screen = open<ChatActivity>().get()
        screen.chat("Hello")
        assertTrue("outside the vocabulary" in screen.words(), screen.words())
        assertEquals("Hello", screen.text(R.id.message))
    }

    @Test
    fun `a file that cannot be read on the model's thread is an error like others`() {
        loadFake()
        var error: AppError? = null
        val fail = { _: OpenModel, _: Stop -> throw IOException("no such disk") }
        assertTrue(parts.host.work("verify", fail) { error = it.error })
        waitFor("the error") { error != null }
        assertTrue("no such disk" in error?.message.orEmpty())
        assertTrue(parts.host.state is HostState.Ready)
    }

    @Test
    fun `every kind of error has words in every language, and details`() {
        waitFor("the beginning") { parts.hasBegun }
        val first = HashSet<String>()
        for (language in listOf("en", "de", "es")) {
            RuntimeEnvironment.setQualifiers(language)
            for (kind in ErrorKind.entries - ErrorKind.OTHER) {
                val words = AppError("the thing broke", "mend it", kind = kind).inWords(app)
                val (general, details) = words.split("\n")
                assertTrue(first.add(general), "said twice, or not translated: $general")
                assertTrue("The thing broke." in details, details)
            }
        }
        assertEquals("The thing broke.\nmend it", AppError("the thing broke", "mend it").inWords(app))
    }

    @Test
    fun `a failure is said in German`() {
        RuntimeEnvironment.setQualifiers("de")
        waitFor("the beginning") { parts.hasBegun }
        fake.onOpen = { throw OutOfMemoryError("no more") }
        parts.load(writeFakeBundle(File(parts.library.own, "odd")))
        waitFor("the failure") { parts.host.state is HostState.Failed }
        val words = open<ChatActivity>().get().words()
        assertTrue("Der Arbeitsspeicher reicht nicht." in words && "Einzelheiten: " in words, words)
    }
}
