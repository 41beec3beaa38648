package org.llamaexport.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

class BundleImportTest {
    @TempDir
    lateinit var models: File

    private val files = testFiles()
    private val whole = files + (MANIFEST_NAME to testManifest(files).write().toByteArray())

    private fun zip(entries: Map<String, ByteArray>): ByteArray {
        val bytes = ByteArrayOutputStream()
        ZipOutputStream(bytes).use { zip ->
            for ((path, content) in entries) {
                zip.putNextEntry(ZipEntry(path))
                zip.write(content)
            }
        }
        return bytes.toByteArray()
    }

    private fun unzip(content: ByteArray, importer: BundleImport = BundleImport(models)): Bundle =
        importer.fromZip(content.inputStream(), "m", content.size.toLong()) { true }

    private fun copied(entries: Map<String, ByteArray>): Bundle =
        BundleImport(models).fromFolder({ entries[it]?.inputStream() }, "m") { true }

    /** Import from what fails in the middle. */
    private fun broken(): Bundle = BundleImport(models).fromFolder({ path ->
        val content = whole.getValue(path)
        if (path != "model.onnx") content.inputStream() else object : InputStream() {
            override fun read(): Int = throw IOException("the card was pulled out")
        }
    }, "m") { true }

    private fun assertNothingLeft() = assertEquals(emptyList(), models.list().orEmpty().toList())

    @Test
    fun `a folder and a zip are imported, also where the zip has the folder in it`() {
        val inside = whole.mapKeys { (path, _) -> "3.2-1B/onnx/$path" }
        val ways = listOf({ copied(whole) }, { unzip(zip(whole)) }, { unzip(zip(inside)) })
        for (way in ways) {
            val bundle = way()
            for ((path, content) in files) {
                assertTrue(bundle.folder.at(path).readBytes().contentEquals(content), path)
            }
            assertEquals(listOf("m"), models.list().orEmpty().toList())
            bundle.folder.deleteRecursively()
        }
    }

    @Test
    fun `what is wrong is named and leaves nothing`() {
        val changed = whole + ("config.json" to "{ ".toByteArray())
        val cases = listOf(
            { unzip(zip(whole + ("../../evil" to ByteArray(3)))) } to "which leads out of the folder",
            { unzip(zip(whole + ("/evil" to ByteArray(3)))) } to "which is not relative",
            { unzip(zip(whole + ("a\\..\\evil" to ByteArray(3)))) } to "holds a backslash",
            { unzip(zip(whole).let { it.copyOf(it.size / 2) }) } to "the zip cannot be read",
            { unzip(zip(mapOf("name" to ByteArray(3))).also { it[31] = -1 }) } to "the zip is damaged",
            { broken() } to "model.onnx cannot be read: the card was pulled out",
            { unzip(zip(files)) } to "holds no manifest.json",
            { unzip(zip(changed)) } to "config.json has other bytes",
            { unzip(zip(whole - "model.onnx")) } to "model.onnx is missing",
            { unzip(ByteArray(0)) } to "is no zip",
            { unzip("no zip at all".toByteArray()) } to "is no zip",
            { copied(whole - "model.onnx") } to "model.onnx is missing",
            { copied(changed) } to "config.json has other bytes",
            { copied(whole + ("config.json" to ByteArray(9))) } to "config.json has more than 2 bytes",
            { copied(whole + ("config.json" to ByteArray(1))) } to "config.json has only 1 of 2 bytes",
            { copied(files) } to "holds no manifest.json",
        )
        for ((way, words) in cases) {
            val error = assertFailsWith<BundleError>(words) { way() }
            assertContains(error.message.orEmpty(), words)
            // The storage had room.
            assertFalse("Delete" in error.hint, words)
            assertNothingLeft()
        }
    }

    @Test
    fun `a zip damaged at any byte is refused or right, and leaves nothing when refused`() {
        val content = zip(whole)
        val random = Random(3)
        repeat(60) {
            val damaged = content.clone()
            val at = random.nextInt(damaged.size)
            damaged[at] = (damaged[at] + 1 + random.nextInt(255)).toByte()
            try {
                val bundle = unzip(if (it % 3 == 0) content.copyOf(at) else damaged)
                assertTrue(bundle.checkHashes { true })
                bundle.folder.deleteRecursively()
            } catch (_: BundleError) {
                assertNothingLeft()
            }
        }
    }

    @Test
    fun `a zip that unpacks to more than there is room for is refused on the way`() {
        val bomb = zip(whole + ("zeros" to ByteArray(40_000_000)))
        val full = BundleImport(models, freeBytes = { 33L * 1024 * 1024 })
        val tooLarge = assertFailsWith<BundleError> { unzip(bomb, full) }
        assertContains(tooLarge.message.orEmpty(), "storage is full")
        assertNothingLeft()
        val error = assertFailsWith<BundleError> {
            BundleImport(models, freeBytes = { 1000 }).fromFolder({ whole[it]?.inputStream() }, "m") { true }
        }
        assertContains(error.message.orEmpty(), "1000 are free")
        assertNothingLeft()
    }

    @Test
    fun `a stop is seen while all is hashed, too`() {
        val sizeBytes = files.values.sumOf { it.size }.toLong()
        for (way in listOf<(BundleImport, (DownloadProgress) -> Boolean) -> Bundle>(
            { importer, goesOn -> importer.fromFolder({ whole[it]?.inputStream() }, "m", goesOn) },
            { importer, goesOn -> zip(whole).let { importer.fromZip(it.inputStream(), "m", 1, goesOn) } },
        )) {
            // A folder's last piece is the first time, and all that is hashed comes after it.
            var times = 0
            assertFailsWith<Stopped> {
                way(BundleImport(models)) {
                    if (it == DownloadProgress(sizeBytes, sizeBytes)) times += 1
                    times < 2
                }
            }
            assertNothingLeft()
        }
    }

    @Test
    fun `two taps import once, and nothing is taken away from the first`() {
        lateinit var second: Throwable
        val bundle = BundleImport(models).fromFolder({ whole[it]?.inputStream() }, "m") {
            BundleImport(models).discardKilled()
            second = assertFailsWith<BundleError> { copied(whole) }
            true
        }
        assertContains(second.message.orEmpty(), "m is just being fetched or copied")
        assertTrue(bundle.checkHashes { true })
        assertEquals(listOf("m"), models.list().orEmpty().toList())
    }

    @Test
    fun `what a killed import left is deleted, and nothing else`() {
        writeBundle(File(models, "m.import"))
        writeBundle(File(models, "m"))
        File(models, "n.download").mkdirs()
        BundleImport(models).discardKilled()
        assertEquals(setOf("m", "n.download"), models.list().orEmpty().toSet())
    }

    @Test
    fun `a stop leaves nothing, and a model that is there is kept`() {
        assertFailsWith<Stopped> {
            BundleImport(models).fromFolder({ whole[it]?.inputStream() }, "m") { it.doneBytes < 1000 }
        }
        assertNothingLeft()
        copied(whole)
        assertContains(assertFailsWith<BundleError> { copied(whole) }.message.orEmpty(), "there already")
        assertTrue(Bundle.open(File(models, "m")).checkHashes { true })
    }
}
