package org.llamaexport.app

import android.app.AlertDialog
import android.net.Uri
import android.widget.EditText
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.BadInput
import org.llamaexport.core.BundleAddress
import org.llamaexport.core.BundleFiles
import org.llamaexport.core.MemoryAnswer
import org.robolectric.Shadows.shadowOf

class ModelsScreenTest : AppTest() {
    private fun zipOf(folder: File, vararg others: Pair<String, ByteArray>): ByteArray {
        val out = ByteArrayOutputStream()
        ZipOutputStream(out).use { zip ->
            val files = folder.listFiles().orEmpty().map { "bundle/${it.name}" to it.readBytes() }
            for ((name, content) in files + others) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(content)
            }
        }
        return out.toByteArray()
    }

    private fun importZip(content: ByteArray) {
        val place = Uri.parse("content://files/small.zip")
        shadowOf(app.contentResolver).registerInputStream(place, content.inputStream())
        assertTrue(parts.jobs.importZip(place))
        waitFor("the import") { parts.jobs.job == null }
    }

    @Test
    fun `a zip is imported and can be loaded`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        importZip(zipOf(writeFakeBundle(File(app.cacheDir, "b"))))
        assertNull(parts.jobs.error)
        waitFor("the row") { "small" in screen.words() }
        screen.window.decorView.clickWords("Load")
        waitFor("the model") { parts.host.state is HostState.Ready }
        waitFor("the row") { "loaded" in screen.words() }
        screen.window.decorView.clickWords("Unload")
        waitFor("the end of the model") { fake.openCount == 0 }
    }

    @Test
    fun `a folder that was chosen is imported`() {
        waitFor("the beginning") { parts.hasBegun }
        val folder = writeFakeBundle(File(app.cacheDir, "my model"))
        val tree = FolderProvider.of(folder)
        for (name in listOf("my-model", "my-model-2")) {
            assertTrue(parts.jobs.importFolder(tree))
            waitFor("the import") { parts.jobs.job == null }
            assertNull(parts.jobs.error)
            assertTrue(File(parts.library.own, "$name/manifest.json").isFile)
        }
    }

    @Test
    fun `the model that the app brings is there at the first start alone`() {
        waitFor("the beginning") { parts.hasBegun }
        val folder = writeFakeBundle(File(app.cacheDir, "b"))
        val files = BundleFiles { path -> File(folder, path).takeIf { it.isFile }?.inputStream() }
        assertNull(parts.library.installDemo { null })
        assertEquals("demo", parts.library.installDemo(files)?.name)
        assertNull(parts.library.installDemo(files))
        assertNull(DemoFiles(app.assets).open("manifest.json"))
    }

    @Test
    fun `what a killed import left is gone at the next start, and no model has such a name`() {
        waitFor("the beginning") { parts.hasBegun }
        val left = File(parts.library.own, "big.import").apply { mkdirs() }
        File(left, "model.onnx_data").writeText("half of it")
        File(parts.library.own, "big.download").mkdirs()
        app.restart()
        waitFor("the beginning") { parts.hasBegun }
        assertEquals(listOf("big.download"), parts.library.own.list().orEmpty().asList())
        assertEquals("big.download-model", parts.library.freeName("big.download"))
        assertEquals("big", parts.library.freeName("big"))
    }

    @Test
    fun `a zip that leads out of its folder is refused in words, and nothing is left`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        importZip(zipOf(writeFakeBundle(File(app.cacheDir, "b")), "../evil" to ByteArray(1)))
        assertTrue("leads out of the folder" in screen.words(), screen.words())
        assertEquals(emptyList(), parts.library.own.list().orEmpty().asList())
        screen.window.decorView.clickWords("OK")
        assertNull(parts.jobs.error)
    }

    @Test
    fun `a bundle of a newer format is refused in words`() {
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        importZip(zipOf(writeFakeBundle(File(app.cacheDir, "b"), version = 3)))
        assertTrue("format_version 3" in screen.words() && "Update the app" in screen.words(), screen.words())
    }

    @Test
    fun `a download is fetched, and one that broke off goes on`() {
        waitFor("the beginning") { parts.hasBegun }
        val bundle = writeFakeBundle(File(app.cacheDir, "b"))
        val artifact = File(bundle, "model.onnx").readBytes()
        var isWhole = false
        TestServer(bundle, cuts = { it == "model.onnx" && !isWhole }).use { server ->
            val screen = open<ModelsActivity>().get()
            assertTrue(parts.jobs.download(BundleAddress(server.base), "far"))
            assertFalse(parts.jobs.download(BundleAddress(server.base), "other"))
            waitFor("the break") { parts.jobs.job == null }
            assertTrue("model.onnx" in checkNotNull(parts.jobs.error).message.orEmpty())
            waitFor("the row") { "The download did not end" in screen.words() }
            isWhole = true
            screen.window.decorView.clickWords("Go on")
            waitFor("the download") { parts.jobs.job == null && parts.jobs.error == null }
            assertTrue(File(parts.library.own, "far/model.onnx").readBytes().contentEquals(artifact))
            assertNull(parts.settings.downloadAddress("far"))
        }
    }

    @Test
    fun `an unfinished download is discarded`() {
        waitFor("the beginning") { parts.hasBegun }
        File(parts.library.own, "far.download").mkdirs()
        val screen = open<ModelsActivity>().get()
        waitFor("the row") { "Discard" in screen.words() }
        screen.window.decorView.clickWords("Discard")
        waitFor("the end of the row") { "Discard" !in screen.words() }
        assertFalse(File(parts.library.own, "far.download").exists())
    }

    @Test
    fun `a model is deleted after a question, and unloaded first`() {
        loadFake()
        val screen = open<ModelsActivity>().get()
        waitFor("the row") { "tiny" in screen.words() }
        screen.window.decorView.clickWords("Delete")
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the end of the model") { fake.openCount == 0 && !File(parts.library.own, "tiny").exists() }
        waitFor("the row") { "There is no model" in screen.words() }
    }

    @Test
    fun `a model that is too large is loaded only after a question with numbers`() {
        waitFor("the beginning") { parts.hasBegun }
        val free = parts.phone.availableBytes()
        writeFakeBundle(File(parts.library.own, "huge"), memory = free * 2 to 0L)
        val screen = open<ModelsActivity>().get()
        waitFor("the row") { "huge" in screen.words() }
        screen.window.decorView.clickWords("Load")
        val words = dialog().window!!.decorView.words()
        assertTrue("huge needs about" in words && "are free" in words, words)
        draw(dialog().window!!.decorView, "dialog-memory")
        assertTrue(parts.host.state is HostState.Idle)
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the model") { parts.host.state is HostState.Ready }
    }

    @Test
    fun `a smaller context is offered where the whole one does not fit`() {
        waitFor("the beginning") { parts.hasBegun }
        val usable = parts.phone.availableBytes() - 200L * 1024 * 1024
        val folder = writeFakeBundle(File(parts.library.own, "wide"), memory = usable / 2 to usable / 2048)
        val answer = parts.gate(org.llamaexport.core.Bundle.open(folder).manifest)
        val tokens = (answer as MemoryAnswer.Smaller).tokens
        val screen = open<ModelsActivity>().get()
        waitFor("the row") { "wide" in screen.words() }
        screen.window.decorView.clickWords("Load")
        press(AlertDialog.BUTTON_POSITIVE)
        waitFor("the model") { parts.host.state is HostState.Ready }
        assertEquals(tokens, parts.host.state.loaded?.contextTokens)
    }

    @Test
    fun `what is typed for a download is an address or a repository, and else a fault in words`() {
        assertEquals("https://a.org/m/onnx", addressOf("https://a.org/m/", "onnx", "").base)
        assertEquals("https://a.org/m", addressOf("https://a.org/m/manifest.json", "", "").base)
        assertEquals("https://huggingface.co/me/m/resolve/main/onnx", addressOf(" me/m ", "onnx", "t").base)
        assertFailsWith<BadInput> { addressOf("nonsense", "", "") }
        waitFor("the beginning") { parts.hasBegun }
        val screen = open<ModelsActivity>().get()
        screen.window.decorView.clickWords("Download")
        dialog().window!!.decorView.all().filterIsInstance<EditText>().first().setText("nonsense")
        press(AlertDialog.BUTTON_POSITIVE)
        assertTrue(dialog().isShowing && "no repository" in dialog().window!!.decorView.words())
        assertNull(parts.jobs.job)
    }
}
