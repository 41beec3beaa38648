package org.llamaexport.app

import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import java.io.File
import java.net.InetAddress
import java.net.InetSocketAddress
import java.util.concurrent.Executors

private const val CUT_BYTES = 1000

/**
 * A server on this machine that gives the files of a bundle.
 *
 * @param token what it asks for; null: nothing
 * @param before called before each answer with the file's name; what it returns is sent in its place
 * @param cuts whether an answer, by the file's name, breaks off after [CUT_BYTES]
 */
class TestServer(
    private val bundle: File,
    private val token: String? = null,
    private val before: (String) -> ByteArray? = { null },
    private val cuts: (String) -> Boolean = { false },
) : AutoCloseable {
    private val server = HttpServer.create(InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0)
    private val threads = Executors.newCachedThreadPool()

    /** Address of its folder. */
    val base: String get() = "http://127.0.0.1:${server.address.port}/onnx"

    init {
        server.executor = threads
        server.createContext("/", ::answer)
        server.start()
    }

    private fun answer(exchange: HttpExchange) = exchange.use {
        val name = exchange.requestURI.path.substringAfterLast('/')
        val isKnown = token == null || exchange.requestHeaders.getFirst("Authorization") == "Bearer $token"
        if (!isKnown) return@use exchange.sendResponseHeaders(401, -1)
        val content = before(name) ?: File(bundle, name).readBytes()
        val wanted = exchange.requestHeaders.getFirst("Range")
        val from = wanted?.removePrefix("bytes=")?.removeSuffix("-")?.toInt() ?: 0
        val range = "bytes $from-${content.size - 1}/${content.size}"
        if (from > 0) exchange.responseHeaders.add("Content-Range", range)
        exchange.sendResponseHeaders(if (from > 0) 206 else 200, (content.size - from).toLong())
        val end = if (cuts(name)) from + CUT_BYTES else content.size
        exchange.responseBody.write(content, from, end - from)
    }

    override fun close() {
        server.stop(0)
        threads.shutdownNow()
    }
}

private inline fun HttpExchange.use(act: () -> Unit) = try {
    act()
} finally {
    close()
}
