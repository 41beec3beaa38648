package org.llamaexport.core

import java.io.ByteArrayOutputStream
import java.io.Closeable
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.MalformedURLException
import java.net.URL

private const val CONNECT_TIMEOUT_MS = 20_000
private const val READ_TIMEOUT_MS = 60_000
private const val MOST_REDIRECTS = 8
private val REDIRECTS = setOf(301, 302, 303, 307, 308)

/** A server that did not give what was asked for; trying again later may help. */
class NetworkError(
    message: String,
    hint: String,
    cause: Throwable? = null,
    kind: ErrorKind = ErrorKind.SERVER,
) : AppError(message, hint, cause, kind)

/** What a server answered; the caller closes it. */
interface HttpAnswer : Closeable {
    /** Status, such as 206. */
    val status: Int

    /** The body, which may end early or never. */
    val body: InputStream

    /** Return the value of a header, or null. */
    fun header(name: String): String?
}

/** The seam to the network. */
fun interface Http {
    /**
     * Ask for a file.
     *
     * @param token secret for the host of [url] alone; null: none
     * @param from first byte that is wanted; 0: the whole file
     * @throws BadInput the token is none
     * @throws NetworkError no server answered, or it led in circles or to another protocol
     */
    fun get(url: String, token: String?, from: Long): HttpAnswer
}

/**
 * The platform's own HTTP client.
 *
 * It follows redirects itself, because a token must not follow to another host, and an encrypted
 * request must not become a plain one.
 */
object UrlHttp : Http {
    override fun get(url: String, token: String?, from: Long): HttpAnswer {
        var place = parse(url, url)
        var secret = token
        // The platform would refuse it too, in words that show it.
        if (token != null && token.any { it !in '!'..'~' }) {
            val message = "the token holds a blank or another character that no token has"
            throw BadInput(message, COPY_TOKEN, kind = ErrorKind.TOKEN_WANTED)
        }
        repeat(MOST_REDIRECTS) {
            val connection = open(place, secret, from)
            val status = try {
                connection.responseCode
            } catch (error: IOException) {
                connection.disconnect()
                val message = "${place.host} does not answer: ${error.message}"
                throw NetworkError(message, OFFLINE, error, ErrorKind.NETWORK)
            }
            val location = connection.getHeaderField("Location")
            if (status !in REDIRECTS || location == null) return ConnectionAnswer(connection, status)
            connection.disconnect()
            val next = parse(location, place.toString(), place)
            if (place.protocol == "https" && next.protocol != "https") {
                throw NetworkError("${place.host} leads to a place that is not encrypted", OTHER_PLACE)
            }
            if (origin(next) != origin(place)) secret = null
            place = next
        }
        throw NetworkError("${place.host} leads from one address to the next without end", OTHER_PLACE)
    }

    private fun open(place: URL, token: String?, from: Long): HttpURLConnection {
        val connection = try {
            place.openConnection() as HttpURLConnection
        } catch (error: IOException) {
            val message = "${place.host} cannot be reached: ${error.message}"
            throw NetworkError(message, OFFLINE, error, ErrorKind.NETWORK)
        }
        connection.instanceFollowRedirects = false
        connection.connectTimeout = CONNECT_TIMEOUT_MS
        connection.readTimeout = READ_TIMEOUT_MS
        // Else Android asks for gzip by itself, and lengths and ranges no longer fit.
        connection.setRequestProperty("Accept-Encoding", "identity")
        if (token != null) connection.setRequestProperty("Authorization", "Bearer $token")
        if (from > 0) connection.setRequestProperty("Range", "bytes=$from-")
        return connection
    }

    private fun parse(text: String, where: String, base: URL? = null): URL {
        // Where a server leads to is no address that anybody typed.
        val kind = if (base == null) ErrorKind.ADDRESS else ErrorKind.SERVER
        val place = try {
            URL(base, text)
        } catch (error: MalformedURLException) {
            throw NetworkError("$where is no address of a file: ${error.message}", OTHER_PLACE, error, kind)
        }
        if (place.protocol != "https" && place.protocol != "http") {
            val message = "$where: expected http or https, found ${place.protocol}"
            throw NetworkError(message, OTHER_PLACE, kind = kind)
        }
        if (place.host.isEmpty()) throw NetworkError("$where names no host", OTHER_PLACE, kind = kind)
        return place
    }

    private fun origin(place: URL) =
        Triple(place.protocol, place.host.lowercase(), if (place.port < 0) place.defaultPort else place.port)

    private const val OFFLINE = "Look whether this device is online, and try again."
    private const val COPY_TOKEN = "Copy it again, whole and alone."
    private const val OTHER_PLACE = "Look at the address, or get the bundle from elsewhere."
}

private class ConnectionAnswer(
    private val connection: HttpURLConnection,
    override val status: Int,
) : HttpAnswer {
    override val body: InputStream by lazy {
        (if (status >= FIRST_ERROR) connection.errorStream else connection.inputStream)
            ?: ByteArray(0).inputStream()
    }

    override fun header(name: String): String? = connection.getHeaderField(name)

    override fun close() = connection.disconnect()

    private companion object {
        const val FIRST_ERROR = 400
    }
}

/**
 * Read a stream of bounded length.
 *
 * @return all of it; of a longer one more than [mostBytes] and not the rest
 * @throws IOException it broke off
 */
internal fun InputStream.readAtMost(mostBytes: Int): ByteArray {
    val output = ByteArrayOutputStream()
    val chunk = ByteArray(SMALL_CHUNK_BYTES)
    while (output.size() <= mostBytes) {
        val count = read(chunk)
        if (count < 0) break
        output.write(chunk, 0, count)
    }
    return output.toByteArray()
}

private const val SMALL_CHUNK_BYTES = 8192
