package org.llamaexport.core

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

class ConversationStoreTest {
    @TempDir
    lateinit var folder: File

    private val store get() = ConversationStore(folder)

    private fun conversation(id: String = "a1", changedMs: Long = 5) = Conversation(
        id = id,
        title = "Of dogs",
        model = "demo",
        changedMs = changedMs,
        system = "You like dogs.",
        sampling = Sampling(temperature = 0.3, topK = 40, seed = 7),
        turns = listOf(
            SavedTurn(Message(Role.USER, "Hi \"you\"\n\u0001 \uD83D\uDC36")),
            SavedTurn(Message(Role.ASSISTANT, "Hel"), isWhole = false, AnswerFigures(1, 0.0, 0.25, 12)),
        ),
        draft = "and",
    )

    @Test
    fun `a conversation comes back as it was`() {
        store.save(conversation())
        assertEquals(conversation(), store.load("a1"))
        val other = conversation().copy(sampling = Sampling(), turns = emptyList(), system = "")
        store.save(other)
        assertEquals(other, store.load("a1"))
        assertEquals(listOf("a1.json"), folder.list().orEmpty().toList())
    }

    @Test
    fun `damage at any byte is reported, and the file is kept`() {
        store.save(conversation())
        val file = File(folder, "a1.json")
        val whole = file.readBytes()
        for (at in whole.indices) {
            for (damaged in listOf(whole.copyOf(at), whole.clone().also { it[at] = (it[at] + 1).toByte() })) {
                file.writeBytes(damaged)
                val found = store.list().single()
                assertTrue(found is KeptConversation.Damaged, "byte $at")
                assertTrue(found.reason.isNotEmpty())
                assertTrue(file.readBytes().contentEquals(damaged))
            }
        }
    }

    @Test
    fun `the list has the newest first and the damaged last`() {
        for ((id, changed) in listOf("a" to 3L, "b" to 9L, "c" to 6L)) store.save(conversation(id, changed))
        File(folder, "0.json").writeText("{")
        File(folder, "d.json.part").writeText("{")
        assertEquals(listOf("b", "c", "a", "0"), store.list().map { it.id })
        store.delete("0")
        store.rename("a", "Of cats")
        assertEquals("Of cats", store.load("a").title)
        assertEquals(listOf("b", "c", "a"), store.list().map { it.id })
    }

    @Test
    fun `what is deleted is gone, also what a kill left of it`() {
        store.save(conversation())
        File(folder, "a1.json.part").writeText(conversation().write())
        store.delete("a1")
        assertEquals(emptyList(), folder.list().orEmpty().toList())
    }

    @Test
    fun `a full storage loses nothing`() {
        store.save(conversation())
        File(folder, "a1.json.part").mkdirs()
        File(folder, "a1.json.part/in the way").writeText("")
        assertContains(
            assertFailsWith<BadInput> { store.save(conversation(changedMs = 6)) }.message.orEmpty(),
            "cannot be kept",
        )
        assertEquals(5, store.load("a1").changedMs)
    }

    @Test
    fun `what is no id of a conversation is refused, and a newer file is named`() {
        for (bad in listOf("../x", "", "a/b")) assertFailsWith<BadInput> { store.load(bad) }
        assertFailsWith<BadInput> { store.load("none") }
        val newer = conversation().write().replace("\"format_version\":1", "\"format_version\":2")
        File(folder, "a1.json").apply { parentFile.mkdirs() }.writeText(newer)
        assertContains(assertFailsWith<BadInput> { store.load("a1") }.message.orEmpty(), "format_version 2")
        File(folder, "b.json").writeText(conversation("a1").write())
        val renamed = assertFailsWith<BadInput> { store.load("b") }
        assertContains(renamed.message.orEmpty(), "is the conversation a1")
        assertTrue(store.newId() != store.newId())
    }

    @Test
    fun `a person can read its text`() {
        assertContains(conversation().toText(), "[assistant]\nHel [...]\n")
    }
}
