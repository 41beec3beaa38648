package org.llamaexport.core

import java.io.BufferedOutputStream
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.net.SocketException
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.concurrent.thread

/** What a client asked for. */
data class Asked(val path: String, val headers: Map<String, String>) {
    /** First byte that is wanted; 0: no range was asked for. */
    val from: Int get() = headers["range"]?.removePrefix("bytes=")?.removeSuffix("-")?.toInt() ?: 0
}

/** A server on loopback that writes whatever bytes a test wants, right or wrong. */
class TestServer(private val answer: (Asked, OutputStream) -> Unit) : AutoCloseable {
    private val socket = ServerSocket(0, 50, InetAddress.getLoopbackAddress())

    /** Everything that was asked for, in order. */
    val asked = CopyOnWriteArrayList<Asked>()

    val base: String = "http://127.0.0.1:${socket.localPort}"

    init {
        thread(isDaemon = true) {
            while (!socket.isClosed) {
                val client = try {
                    socket.accept()
                } catch (_: SocketException) {
                    break
                }
                thread(isDaemon = true) { serve(client) }
            }
        }
    }

    override fun close() = socket.close()

    private fun serve(client: Socket) = client.use {
        try {
            val request = read(client.getInputStream()) ?: return
            asked.add(request)
            val output = BufferedOutputStream(client.getOutputStream())
            answer(request, output)
            output.flush()
        } catch (_: IOException) {
            // The client went away, as some tests want it to.
        }
    }

    private fun read(input: InputStream): Asked? {
        val head = StringBuilder()
        while (!head.endsWith("\r\n\r\n")) {
            val byte = input.read()
            if (byte < 0) return null
            head.append(byte.toChar())
        }
        val lines = head.lines()
        val headers = lines.drop(1).filter { ':' in it }.associate {
            it.substringBefore(':').lowercase() to it.substringAfter(':').trim()
        }
        return Asked(lines[0].split(' ')[1], headers)
    }
}

/** Write a status line, headers and a body; the length is said unless [headers] says another. */
fun OutputStream.answer(status: Int, body: ByteArray, vararg headers: Pair<String, String>) {
    val all = mapOf("Content-Length" to "${body.size}", "Connection" to "close") + headers
    write("HTTP/1.1 $status -\r\n".toByteArray())
    for ((name, value) in all) if (value.isNotEmpty()) write("$name: $value\r\n".toByteArray())
    write("\r\n".toByteArray())
    write(body)
}

/** Answer as an honest server does, with the rest of a file where a range is asked for. */
fun OutputStream.serve(content: ByteArray, asked: Asked) {
    val from = asked.from
    if (from == 0) return answer(200, content)
    if (from >= content.size) return answer(416, ByteArray(0), "Content-Range" to "bytes */${content.size}")
    val range = "bytes $from-${content.size - 1}/${content.size}"
    answer(206, content.copyOfRange(from, content.size), "Content-Range" to range)
}
