package org.llamaexport.engine.onnx

import java.io.ByteArrayOutputStream

/**
 * An ONNX graph of one node, as the bytes of its protobuf: `Pad(data, pads)` -> `padded`.
 *
 * onnxruntime allocates what a graph gives outside Java's heap. That is why caches are made with
 * it: on Android the memory of a direct buffer counts as the heap's, which ends at 256 or 512 MB.
 */
internal object PadGraph {
    const val DATA = "data"
    const val PADS = "pads"
    const val PADDED = "padded"

    private const val FLOAT = 1
    private const val INT64 = 7
    private const val IR_VERSION = 8
    private const val OPSET = 13

    fun bytes(): ByteArray {
        val node = Message().text(1, DATA).text(1, PADS).text(2, PADDED).text(4, "Pad")
        val graph = Message().message(1, node).text(2, "pad")
            .message(11, value(DATA, FLOAT)).message(11, value(PADS, INT64))
            .message(12, value(PADDED, FLOAT))
        val opset = Message().text(1, "").number(2, OPSET)
        return Message().number(1, IR_VERSION).message(7, graph).message(8, opset).bytes()
    }

    private fun value(name: String, type: Int): Message {
        val tensor = Message().number(1, type)
        return Message().text(1, name).message(2, Message().message(1, tensor))
    }

    /** A protobuf message that grows field by field; the field numbers are ONNX's. */
    private class Message {
        private val out = ByteArrayOutputStream()

        fun number(field: Int, value: Int): Message {
            varint(field shl 3)
            varint(value)
            return this
        }

        fun text(field: Int, value: String): Message = content(field, value.toByteArray(Charsets.UTF_8))

        fun message(field: Int, value: Message): Message = content(field, value.bytes())

        fun bytes(): ByteArray = out.toByteArray()

        private fun content(field: Int, value: ByteArray): Message {
            varint((field shl 3) or 2)
            varint(value.size)
            out.write(value, 0, value.size)
            return this
        }

        private fun varint(value: Int) {
            var rest = value
            while (rest >= 0x80) {
                out.write((rest and 0x7F) or 0x80)
                rest = rest ushr 7
            }
            out.write(rest)
        }
    }
}
