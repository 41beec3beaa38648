package org.llamaexport.core

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.io.TempDir
import org.llamaexport.fixtures.PythonStepModel
import org.llamaexport.fixtures.Turns
import org.llamaexport.fixtures.playWith

/** The seam carries a Core ML package too; the engines' own tests have the other two kinds. */
@Tag("bundles")
class RealBundlesTest {
    @Test
    fun `a zip that llama-export packed is imported, whichever headers it has`(@TempDir models: File) {
        val folder = assertNotNull(Turns.of("demo/onnx")).bundle
        val importer = BundleImport(models)
        for (name in listOf("onnx", "onnx-large")) {
            val zip = File(folder.parentFile, "$name.zip")
            val found = zip.inputStream().use { importer.fromZip(it, name, zip.length()) { true } }
            assertEquals(Bundle.open(folder).manifest.files, found.manifest.files)
            assertTrue(found.checkHashes { true })
        }
    }

    @Test
    fun `a Core ML package writes what it writes in Python`() {
        val turns = Turns.of("demo/coreml")
        assumeTrue(turns != null, "coremltools is not installed")
        PythonStepModel(assertNotNull(turns).bundle).use { model ->
            assertEquals(turns.vocabSize, model.vocabSize)
            assertEquals(turns.maxContext, model.maxContext)
            // A prompt and an edit in its middle; the rest takes a while in an evaluator.
            for (turn in turns.turns.take(2)) {
                assertContentEquals(turn.written, turn.playWith(model), "after ${turn.position}")
            }
        }
    }
}
