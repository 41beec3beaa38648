package org.llamaexport.app

import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.ScrollView
import android.widget.TextView
import org.llamaexport.core.AppError
import org.llamaexport.core.BadInput
import org.llamaexport.core.Sampling
import org.llamaexport.core.WriteSettings

/** The system message, how tokens are drawn and how long texts may be, for this conversation and new ones. */
class SettingsActivity : ScreenActivity() {
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        showScreen(R.layout.settings)
        val buttons = requireViewById<ViewGroup>(R.id.buttons)
        buttons.addButton(getString(R.string.save), R.style.App_Button_Filled) { save() }
        buttons.addButton(getString(R.string.models_own), R.style.App_Button_Outlined) {
            show(parts.host.state.loaded?.sampling ?: Sampling())
        }
        parts.host.state.loaded?.takeIf { !it.takesSystem }?.let(::refuseSystem)
        // After a rotation the fields hold what was typed.
        if (state != null) return
        val conversation = parts.session.conversation
        put(R.id.system, conversation.system)
        show(conversation.sampling)
        put(R.id.max_tokens, parts.settings.maxTokens.toString())
        put(R.id.context_tokens, parts.settings.contextTokens.toString())
    }

    /** Keep the system message for other models, and say so. */
    private fun refuseSystem(model: LoadedModel) {
        requireViewById<EditText>(R.id.system).isEnabled = false
        val note = requireViewById<TextView>(R.id.no_system)
        note.text = getString(R.string.no_system, model.name)
        note.visibility = View.VISIBLE
    }

    private fun show(sampling: Sampling) {
        put(R.id.temperature, sampling.temperature.toString())
        put(R.id.top_p, sampling.topP.toString())
        put(R.id.top_k, sampling.topK.toString())
        put(R.id.min_p, sampling.minP.toString())
        put(R.id.repetition_penalty, sampling.repetitionPenalty.toString())
        put(R.id.seed, sampling.seed?.toString().orEmpty())
    }

    private fun save() {
        val fault = requireViewById<TextView>(R.id.fault)
        try {
            val sampling = Sampling(
                temperature = decimal(R.id.temperature, R.string.temperature),
                topP = decimal(R.id.top_p, R.string.top_p),
                topK = whole(R.id.top_k, R.string.top_k),
                seed = seed(),
                minP = decimal(R.id.min_p, R.string.min_p),
                repetitionPenalty = decimal(R.id.repetition_penalty, R.string.repetition_penalty),
            )
            val maxTokens = whole(R.id.max_tokens, R.string.max_tokens)
            WriteSettings(sampling, maxTokens)
            parts.settings.contextTokens = whole(R.id.context_tokens, R.string.context_tokens)
            parts.settings.maxTokens = maxTokens
            val system = text(R.id.system)
            val own = parts.host.state.loaded?.sampling
            parts.settings.sampling = sampling.takeIf { it != own }
            parts.settings.system = system
            parts.session.configure(system, sampling)
            finish()
        } catch (error: AppError) {
            fault.text = error.inWords(this)
            fault.visibility = View.VISIBLE
            (fault.parent.parent as? ScrollView)?.smoothScrollTo(0, 0)
        }
    }

    private fun seed(): Long? {
        val typed = text(R.id.seed).trim()
        if (typed.isEmpty()) return null
        return typed.toLongOrNull() ?: throw wrong(R.string.seed, R.string.a_whole_number, typed)
    }

    private fun decimal(id: Int, label: Int): Double {
        val typed = text(id).trim().replace(',', '.')
        return typed.toDoubleOrNull() ?: throw wrong(label, R.string.a_number, typed)
    }

    private fun whole(id: Int, label: Int): Int {
        val typed = text(id).trim()
        return typed.toIntOrNull() ?: throw wrong(label, R.string.a_whole_number, typed)
    }

    private fun wrong(label: Int, expected: Int, found: String) =
        BadInput(getString(R.string.wrong_number, getString(label), getString(expected), found), "")

    private fun text(id: Int): String = requireViewById<EditText>(id).text.toString()

    private fun put(id: Int, text: String) = requireViewById<EditText>(id).setText(text)
}
