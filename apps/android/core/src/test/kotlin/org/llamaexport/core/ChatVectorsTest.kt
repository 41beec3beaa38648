package org.llamaexport.core

import java.time.LocalDateTime
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotEquals

/** What an export writes into a manifest gives the ids of the model's own template. */
class ChatVectorsTest {
    private val vectors = Vectors("chat.json")

    @Test
    fun `every dialog has its template's ids`() {
        val tokenizer = demoTokenizer()
        val forms = HashMap<String, ChatFormat>()
        vectors.each("forms") {
            val form = ChatFormat.of(it.fields("chat"), tokenizer.vocabSize)
            assertNotEquals(form.turns == null, form.reason == null)
            forms[it.text("name")] = form
        }
        vectors.each("dialogs") {
            val form = forms.getValue(it.text("form"))
            val messages = messagesOf(it)
            val now = LocalDateTime.parse(it.text("time"))
            assertContentEquals(it.ints("ids"), form.encode(messages, tokenizer, now = now))
        }
        assertEquals(true, forms.values.any { it.turns == null })
    }
}
