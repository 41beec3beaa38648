package org.llamaexport.core

import kotlin.test.Test
import kotlin.test.assertEquals

/** The manifests that Python takes are taken, and what would mislead an app is refused. */
class ManifestVectorsTest {
    private val vectors = Vectors("manifests.json")

    /** What opening a bundle reads of its manifest. */
    private fun read(text: String) {
        val manifest = Manifest.parse(text.toByteArray())
        manifest.chat?.let { ChatFormat.of(it, manifest.vocabSize) }
    }

    @Test
    fun `good ones are taken`() = vectors.each("good") { read(it.text("text")) }

    @Test
    fun `bad ones are refused`() {
        val taken = ArrayList<String>()
        vectors.each("bad") {
            try {
                read(it.text("text"))
                taken += it.text("name")
            } catch (_: AppError) {
                // as it must be
            }
        }
        assertEquals(emptyList(), taken)
    }
}
