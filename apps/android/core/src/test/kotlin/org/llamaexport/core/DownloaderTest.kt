package org.llamaexport.core

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

private const val KILLS = 200
private const val NAME = "model"
private val NEVER = { false }

class DownloaderTest {
    @TempDir
    lateinit var models: File

    private val files = testFiles()
    private val manifest = testManifest(files).write().toByteArray()
    private val target get() = File(models, NAME)
    private val part get() = models.at("$NAME.download/model.onnx.part")

    private fun content(path: String): ByteArray? = if (path == MANIFEST_NAME) manifest else files[path]

    /** A server of the bundle that is honest but for the artifact, which [lie] answers where it is given. */
    private fun server(lie: ((Asked, OutputStream) -> Unit)? = null) = TestServer { asked, output ->
        val path = asked.path.removePrefix("/b/")
        when {
            lie != null && path == "model.onnx" -> lie(asked, output)
            else -> content(path)?.let { output.serve(it, asked) } ?: output.answer(404, ByteArray(0))
        }
    }

    private fun fetch(server: TestServer, isStopped: () -> Boolean = NEVER, http: Http = UrlHttp): Bundle =
        Downloader(models, http).fetch(BundleAddress("${server.base}/b"), NAME, isStopped) { }

    private fun assertWhole(folder: File = target) {
        for ((path, content) in files) assertTrue(folder.at(path).readBytes().contentEquals(content), path)
        assertTrue(Bundle.open(folder).checkHashes { true })
        assertEquals(emptyList(), Downloader(models).unfinished())
    }

    /** Leave the first [bytes] of the artifact as an earlier run would have, with [edit] made to them. */
    private fun leave(bytes: Int, edit: (ByteArray) -> Unit = {}) {
        val staging = File(models, "$NAME.download").apply { mkdirs() }
        File(staging, MANIFEST_NAME).writeBytes(manifest)
        part.writeBytes(files.getValue("model.onnx").copyOf(bytes).also(edit))
    }

    @Test
    fun `a bundle is fetched, the manifest first`() = server().use { server ->
        val seen = ArrayList<DownloadProgress>()
        val address = BundleAddress("${server.base}/b/")
        val bundle = Downloader(models).fetch(address, NAME, NEVER) { seen.add(it) }
        assertEquals(target, bundle.folder)
        assertWhole()
        assertEquals("/b/manifest.json", server.asked.first().path)
        assertEquals(DownloadProgress(305_002, 305_002), seen.last())
        assertEquals(seen.sortedBy { it.doneBytes }, seen)
    }

    @Test
    fun `after 200 kills at random bytes no file is corrupt`() = server().use { server ->
        val random = Random(7)
        var kills = 0
        var finished = 0
        while (kills < KILLS) {
            val killer = Killer(random.nextInt(1, 150_000))
            try {
                fetch(server, http = killer)
                assertWhole()
                target.deleteRecursively()
                finished += 1
            } catch (_: Killed) {
                kills += 1
                assertFalse(target.exists())
                // A machine that loses power may lose or garble what it had not yet stored.
                if (part.length() > 0) when (random.nextInt(4)) {
                    0 -> part.writeBytes(part.readBytes().copyOf(random.nextInt(part.length().toInt())))
                    1 -> part.writeBytes(part.readBytes().also { it[random.nextInt(it.size)] = 0 })
                }
            } catch (error: BundleError) {
                // A garbled part is found, said and deleted; the next run begins anew.
                assertContains(error.message.orEmpty(), "model.onnx has other bytes")
                assertFalse(part.exists())
            }
        }
        assertTrue(finished > 10, "$finished runs came to their end")
        if (runCatching { fetch(server) }.isFailure) fetch(server)
        assertWhole()
    }

    @Test
    fun `each lie of a server is named, and the next honest answer is taken`() {
        val whole = files.getValue("model.onnx")
        val other = whole.clone().also { it[9] = (it[9] + 1).toByte() }
        val lies: List<Pair<String, (Asked, OutputStream) -> Unit>> = listOf(
            "model.onnx has other bytes than the manifest says; it was deleted" to
                { _, output -> output.answer(200, other) },
            "model.onnx has 300001 bytes, and the manifest says 300000" to
                { _, output -> output.answer(200, whole + 1) },
            "model.onnx has 299999 bytes, and the manifest says 300000" to
                { _, output -> output.answer(200, whole.copyOf(whole.size - 1)) },
            "model.onnx is longer than the manifest's 300000 bytes" to
                { _, output -> output.answer(200, whole + ByteArray(99), "Content-Length" to "") },
            "model.onnx ended after 200000 of 300000 bytes" to
                { _, output -> output.answer(200, whole.copyOf(200_000), "Content-Length" to "") },
            "model.onnx ended after 200000 of 300000 bytes" to
                { _, output -> output.answer(200, whole.copyOf(200_000), "Content-Length" to "300000") },
            "model.onnx broke off after" to { _, output ->
                val chunked = arrayOf("Content-Length" to "", "Transfer-Encoding" to "chunked")
                output.answer(200, "493e0\r\n".toByteArray() + whole.copyOf(200_000), *chunked)
            },
            "model.onnx comes packed as gzip" to
                { _, output -> output.answer(200, whole, "Content-Encoding" to "gzip") },
            "model.onnx: the server wants to know who asks (401)" to
                { _, output -> output.answer(401, ByteArray(0)) },
            "model.onnx is not on the server" to { _, output -> output.answer(404, ByteArray(0)) },
            "model.onnx: the server answered 503" to { _, output -> output.answer(503, ByteArray(0)) },
            "leads from one address to the next without end" to
                { asked, output -> output.answer(302, ByteArray(0), "Location" to asked.path) },
            "expected http or https, found file" to
                { _, output -> output.answer(302, ByteArray(0), "Location" to "file:///etc/passwd") },
            "names no host" to
                { _, output -> output.answer(302, ByteArray(0), "Location" to "http:///model.onnx") },
            "what answers is no web server" to { _, output -> output.write("nonsense".toByteArray()) },
        )
        for ((words, lie) in lies) {
            server(lie).use { server ->
                val error = assertFailsWith<AppError>(words) { fetch(server) }
                assertContains(error.message.orEmpty(), words)
                assertTrue(error.hint.isNotEmpty(), words)
                assertFalse(target.exists())
            }
            server().use { fetch(it) }
            assertWhole()
            target.deleteRecursively()
        }
    }

    @Test
    fun `a part is continued where it ends, by a right answer only`() {
        val whole = files.getValue("model.onnx")
        fun wrong(asked: Asked, output: OutputStream, range: String) {
            if (asked.from == 0) return output.serve(whole, asked)
            val rest = whole.copyOfRange(asked.from, whole.size)
            output.answer(206, rest, "Content-Range" to range)
        }
        // The answer to the range, and the requests for the artifact that it takes.
        val cases: List<Pair<(Asked, OutputStream) -> Unit, Int>> = listOf(
            Pair({ asked, output -> output.serve(whole, asked) }, 1),
            Pair({ _, output -> output.answer(200, whole) }, 1),
            Pair({ asked, output ->
                if (asked.from > 0) output.answer(416, ByteArray(0)) else output.serve(whole, asked)
            }, 2),
            Pair({ asked, output -> wrong(asked, output, "bytes 0-299999/300000") }, 2),
            Pair({ asked, output -> wrong(asked, output, "bytes 1000-299999/400000") }, 2),
        )
        for ((answer, requests) in cases) {
            leave(1000)
            server(answer).use { server ->
                fetch(server)
                val artifact = server.asked.filter { it.path == "/b/model.onnx" }
                assertEquals("bytes=1000-", artifact.first().headers["range"])
                assertEquals(requests, artifact.size)
            }
            assertWhole()
            target.deleteRecursively()
        }
    }

    @Test
    fun `a garbled part is deleted, and one that is too long begins anew`() = server().use { server ->
        leave(1000) { it[500] = (it[500] + 1).toByte() }
        val error = assertFailsWith<BundleError> { fetch(server) }
        assertContains(error.message.orEmpty(), "it was deleted")
        assertFalse(part.exists())
        leave(300_000)
        part.appendBytes(ByteArray(5))
        fetch(server)
        assertWhole()
    }

    @Test
    fun `a server that has a newer bundle by now begins it anew`() {
        leave(1000)
        val newer = testFiles(seed = 5)
        TestServer { asked, output ->
            val path = asked.path.removePrefix("/b/")
            val content = newer[path] ?: testManifest(newer).write().toByteArray()
            output.serve(content, asked)
        }.use { server ->
            fetch(server)
            assertNull(server.asked.single { it.path == "/b/model.onnx" }.headers["range"])
        }
        assertTrue(File(target, "model.onnx").readBytes().contentEquals(newer.getValue("model.onnx")))
    }

    @Test
    fun `a token is not told to another host, nor shown`() {
        val whole = files.getValue("model.onnx")
        TestServer { asked, output -> output.serve(whole, asked) }.use { other ->
            val away = other.base.replace("127.0.0.1", "localhost")
            server { _, output ->
                output.answer(302, ByteArray(0), "Location" to "$away/blob")
            }.use { server ->
                val address = BundleAddress("${server.base}/b", "secret")
                Downloader(models).fetch(address, NAME, NEVER) { }
                assertTrue(server.asked.all { it.headers["authorization"] == "Bearer secret" })
                assertNull(other.asked.single().headers["authorization"])
                assertFalse("secret" in address.toString())
            }
        }
        assertWhole()
    }

    @Test
    fun `a token that no header takes is refused in words without it`() = server().use { server ->
        for (token in listOf("secret\n", "sec ret", "s\u00e9cret", "secret\r\nHost: evil")) {
            val error = assertFailsWith<AppError>(token) {
                Downloader(models).fetch(BundleAddress("${server.base}/b", token), NAME, NEVER) { }
            }
            assertContains(error.message.orEmpty(), "the token holds a blank")
            assertFalse(token in "$error ${error.cause}")
        }
        assertEquals(emptyList(), server.asked)
    }

    @Test
    fun `what was fetched before is looked at no longer than the user wants`() = server().use { server ->
        writeBundle(File(models, "$NAME.download"), files)
        assertFailsWith<Stopped> { fetch(server, { true }) }
        assertFalse(target.exists())
        fetch(server)
        assertWhole()
        assertEquals(setOf("/b/manifest.json"), server.asked.map { it.path }.toSet())
    }

    @Test
    fun `a bundle may hold any name, and a storage that takes nothing is said`() {
        val odd = files + (".lock" to ByteArray(3)) + ("manifest.json.part" to ByteArray(3))
        val listed = testManifest(odd).write().toByteArray()
        TestServer { asked, output ->
            val path = asked.path.removePrefix("/b/")
            output.serve(if (path == MANIFEST_NAME) listed else odd.getValue(path), asked)
        }.use { server ->
            fetch(server)
            assertTrue(Bundle.open(target).checkHashes { true })
            assertEquals(listOf(NAME), models.list().orEmpty().toList())
            target.deleteRecursively()
            File(models, "$NAME.lock").mkdirs()
            val error = assertFailsWith<BundleError> { fetch(server) }
            assertContains(error.message.orEmpty(), "$NAME cannot be written")
        }
    }

    @Test
    fun `what is discarded lies in the folder of models`() {
        val beside = File(models.parentFile, "beside-${models.name}.download").apply { mkdirs() }
        assertFailsWith<BadInput> { Downloader(models).discard("../beside-${models.name}") }
        assertTrue(beside.isDirectory)
        beside.delete()
        leave(1000)
        Downloader(models).discard(NAME)
        assertEquals(emptyList(), models.list().orEmpty().toList())
    }

    @Test
    fun `a stop keeps what came, and the next run goes on`() = server().use { server ->
        var asks = 0
        assertFailsWith<Stopped> { fetch(server, { ++asks > 4 }) }
        assertTrue(part.length() > 0)
        assertEquals(listOf(NAME), Downloader(models).unfinished())
        fetch(server)
        assertWhole()
        assertTrue(server.asked.any { it.path == "/b/model.onnx" && it.from > 0 })
    }

    @Test
    fun `two taps fetch once`() {
        lateinit var second: Throwable
        server { asked, output ->
            second = assertFailsWith<BundleError> {
                Downloader(models).fetch(BundleAddress("http://127.0.0.1/b"), NAME, NEVER) { }
            }
            output.serve(files.getValue("model.onnx"), asked)
        }.use { fetch(it) }
        assertContains(second.message.orEmpty(), "is just being fetched or copied")
        assertWhole()
    }

    @Test
    fun `too little storage is said before the first byte of a file`() = server().use { server ->
        val full = Downloader(models, freeBytes = { 1_000_000 })
        val error = assertFailsWith<BundleError> {
            full.fetch(BundleAddress("${server.base}/b"), NAME, NEVER) { }
        }
        assertContains(error.message.orEmpty(), "and 1000000 are free")
        assertEquals(listOf("/b/manifest.json"), server.asked.map { it.path })
    }

    @Test
    fun `a model that is there is not overwritten`() = server().use { server ->
        fetch(server)
        assertContains(assertFailsWith<BundleError> { fetch(server) }.message.orEmpty(), "is there already")
        assertWhole()
        // The last ones would be deleted as what an import, a download or a lock left.
        for (bad in listOf("../x", "a/b", "", ".", "a:b", "a.import", "a.download", "a.lock", "a.IMPORT")) {
            assertFailsWith<BadInput> {
                Downloader(models).fetch(BundleAddress("${server.base}/b"), bad, NEVER) { }
            }
        }
    }
}

/** The process dies: nothing that follows is done. */
private class Killed : Error()

/** A client that dies after a number of bytes. */
private class Killer(private var bytesLeft: Int) : Http {
    override fun get(url: String, token: String?, from: Long): HttpAnswer {
        val answer = UrlHttp.get(url, token, from)
        return object : HttpAnswer by answer {
            override val body = object : InputStream() {
                override fun read(): Int = throw IOException("not asked for")

                override fun read(into: ByteArray, offset: Int, length: Int): Int {
                    val count = answer.body.read(into, offset, minOf(length, 4096))
                    bytesLeft -= count
                    if (bytesLeft < 0) throw Killed()
                    return count
                }
            }
        }
    }
}
