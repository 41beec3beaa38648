package org.llamaexport.app

import android.content.SharedPreferences
import kotlin.properties.ReadWriteProperty
import kotlin.reflect.KProperty
import org.llamaexport.core.BadInput
import org.llamaexport.core.ErrorKind
import org.llamaexport.core.Sampling
import org.llamaexport.core.WriteSettings

private const val FEWEST_CONTEXT = 128

/** What the user chose, and what the app must know after it was killed. */
class AppSettings(private val stored: SharedPreferences) {
    /** System message of new conversations. */
    var system: String by text("system")

    /** Largest number of positions of a model. */
    var contextTokens: Int
        get() = stored.getInt("context_tokens", 4096)
        set(value) {
            if (value < FEWEST_CONTEXT) {
                val message = "expected a context of at least $FEWEST_CONTEXT tokens, found $value"
                throw BadInput(message, "Enter more.", kind = ErrorKind.SETTING)
            }
            stored.edit().putInt("context_tokens", value).apply()
        }

    /** Largest number of tokens of an answer. */
    var maxTokens: Int
        get() = stored.getInt("max_tokens", 1024)
        set(value) {
            WriteSettings(maxTokens = value)
            stored.edit().putInt("max_tokens", value).apply()
        }

    /** How new conversations draw tokens; null: as the model's bundle asks. */
    var sampling: Sampling?
        get() {
            if (!stored.contains("temperature")) return null
            return Sampling(
                temperature = number("temperature"),
                topP = number("top_p"),
                topK = stored.getInt("top_k", 0),
                seed = if (stored.contains("seed")) stored.getLong("seed", 0) else null,
                minP = number("min_p"),
                repetitionPenalty = number("repetition_penalty"),
            )
        }
        set(value) {
            val edit = stored.edit()
            SAMPLING_KEYS.forEach(edit::remove)
            if (value != null) {
                edit.putString("temperature", value.temperature.toString())
                edit.putString("top_p", value.topP.toString())
                edit.putInt("top_k", value.topK)
                value.seed?.let { edit.putLong("seed", it) }
                edit.putString("min_p", value.minP.toString())
                edit.putString("repetition_penalty", value.repetitionPenalty.toString())
            }
            edit.apply()
        }

    /** Id of the conversation that was open; empty: none. */
    var conversation: String by text("conversation")

    /** Path of the model that was in memory; empty: none. */
    var model: String by text("model")

    /** Path of the model that is just being loaded: who dies of it is not loaded again by itself. */
    var loading: String
        get() = stored.getString("loading", "").orEmpty()
        set(value) {
            // At once: the process may be killed before a later write.
            stored.edit().putString("loading", value).commit()
        }

    /** When the last end of the app that was shown happened, in milliseconds since 1970. */
    var shownExitMs: Long
        get() = stored.getLong("shown_exit_ms", 0)
        set(value) = stored.edit().putLong("shown_exit_ms", value).apply()

    /** Whether the user was asked for notifications. */
    var hasAskedNotifications: Boolean
        get() = stored.getBoolean("asked_notifications", false)
        set(value) = stored.edit().putBoolean("asked_notifications", value).apply()

    /** Where an unfinished download comes from, by its name; the token is never kept. */
    fun downloadAddress(name: String): String? = stored.getString("download/$name", null)

    fun keepDownloadAddress(name: String, address: String?) {
        val edit = stored.edit()
        if (address == null) edit.remove("download/$name") else edit.putString("download/$name", address)
        edit.apply()
    }

    private fun number(key: String): Double = stored.getString(key, null)?.toDoubleOrNull() ?: 0.0

    private fun text(key: String) = object : ReadWriteProperty<AppSettings, String> {
        override fun getValue(thisRef: AppSettings, property: KProperty<*>): String =
            stored.getString(key, "").orEmpty()

        override fun setValue(thisRef: AppSettings, property: KProperty<*>, value: String) =
            stored.edit().putString(key, value).apply()
    }

    private companion object {
        val SAMPLING_KEYS = listOf("temperature", "top_p", "top_k", "seed", "min_p", "repetition_penalty")
    }
}
