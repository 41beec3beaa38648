package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class HttpTest {
    @Test
    fun `a wrong address is the user's where it was typed, and the server's where it leads there`() {
        for (typed in listOf("ftp://host/model", "nonsense", "http:///model")) {
            val error = assertFailsWith<NetworkError>(typed) { UrlHttp.get(typed, null, 0) }
            assertEquals(ErrorKind.ADDRESS, error.kind, typed)
        }
        for (place in listOf("ftp://host/model", "http://host:port/", "http:///model")) {
            TestServer { _, output -> output.answer(302, ByteArray(0), "Location" to place) }.use { server ->
                val url = "${server.base}/model"
                val error = assertFailsWith<NetworkError>(place) { UrlHttp.get(url, null, 0) }
                assertEquals(ErrorKind.SERVER, error.kind, place)
            }
        }
    }
}
