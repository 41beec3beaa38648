package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse

class BundleAddressTest {
    @Test
    fun `an address on the hub has its parts escaped`() {
        val found = BundleAddress.onHub("https://hub.test", "me/a model", "onnx", "v 1")
        assertEquals("https://hub.test/me/a%20model/resolve/v%201/onnx/sub/x%c3%a9", found.of("sub/xé"))
        for (bad in listOf("me", "me/../x", "a/b/c", "/")) {
            assertFailsWith<BadInput>(bad) { BundleAddress.onHub("https://hub.test", bad, "") }
        }
    }

    @Test
    fun `an address shows no secret, and takes a slash at its end or none`() {
        val address = BundleAddress("https://host.test/b/", "secret")
        assertEquals("https://host.test/b/manifest.json", address.of("manifest.json"))
        assertEquals(address.of("a"), BundleAddress("https://host.test/b").of("a"))
        assertFalse("secret" in "$address")
    }
}
