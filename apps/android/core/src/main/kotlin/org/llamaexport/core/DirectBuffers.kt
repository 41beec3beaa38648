package org.llamaexport.core

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Allocate memory that a runtime can read and write where it lies.
 *
 * @param count number of numbers
 * @param bytesEach size of one of them in bytes
 * @throws EngineError it is more than one buffer can hold
 */
fun directBuffer(count: Int, bytesEach: Int): ByteBuffer {
    val sizeBytes = count.toLong() * bytesEach
    if (sizeBytes > Int.MAX_VALUE) {
        throw EngineError(
            "$count numbers of $bytesEach bytes are more than one buffer can hold",
            "Choose a shorter context, or take a smaller model.",
        )
    }
    return ByteBuffer.allocateDirect(sizeBytes.toInt()).order(ByteOrder.nativeOrder())
}

/** Leave so many numbers to read; the type of `Buffer` has these methods on every Android. */
fun Buffer.show(size: Int) {
    clear()
    limit(size)
}
