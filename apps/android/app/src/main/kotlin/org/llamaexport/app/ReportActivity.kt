package org.llamaexport.app

import android.net.Uri
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView

private const val SAVE = 1

/** Verifies the model on this phone and measures it; both reports can be shared and saved. */
class ReportActivity : ScreenActivity() {
    private val look = ::render
    private lateinit var buttons: List<Button>
    private lateinit var stop: Button

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        showScreen(R.layout.report)
        val row = requireViewById<ViewGroup>(R.id.buttons)
        buttons = listOf(
            row.addButton(getString(R.string.verify), R.style.App_Button_Filled) {
                begin { parts.reports.verify() }
            },
            row.addButton(getString(R.string.benchmark), R.style.App_Button_Outlined) {
                begin { parts.reports.measure(isQuick = false) }
            },
            row.addButton(getString(R.string.benchmark_quick), R.style.App_Button_Outlined) {
                begin { parts.reports.measure(isQuick = true) }
            },
        )
        stop = row.addButton(getString(R.string.stop), R.style.App_Button_Filled) { parts.host.stop() }
        val exports = requireViewById<ViewGroup>(R.id.exports)
        exports.addButton(getString(R.string.share)) { shareReport() }
        exports.addButton(getString(R.string.save_file)) { askPlace() }
    }

    override fun onStart() {
        super.onStart()
        parts.reports.addListener(look)
        parts.host.addListener(look)
        render()
    }

    override fun onStop() {
        parts.reports.removeListener(look)
        parts.host.removeListener(look)
        super.onStop()
    }

    override fun onChosen(request: Int, place: Uri) {
        val json = parts.reports.result?.json
        save(place) { json }
    }

    private fun begin(start: () -> Boolean) {
        if (!start()) say(getString(R.string.model_busy))
    }

    private fun render() {
        val running = parts.reports.running
        val model = parts.host.state.loaded
        val isReady = running == null && parts.host.state is HostState.Ready
        buttons.forEach {
            it.isEnabled = isReady
            it.visibility = if (running == null) View.VISIBLE else View.GONE
        }
        stop.visibility = if (running == null) View.GONE else View.VISIBLE
        requireViewById<TextView>(R.id.intro).text = when {
            running != null -> running.words(this)
            model == null -> getString(R.string.check_needs_model)
            else -> getString(R.string.check_intro)
        }
        val bar = requireViewById<ProgressBar>(R.id.progress)
        bar.visibility = if (running == null) View.GONE else View.VISIBLE
        bar.isIndeterminate = running == null || running.total == 0
        bar.max = running?.total ?: 0
        bar.progress = running?.done ?: 0
        renderResult()
    }

    private fun renderResult() {
        val result = parts.reports.result
        requireViewById<View>(R.id.card).visibility = if (result == null) View.GONE else View.VISIBLE
        if (result == null) return
        val verdict = requireViewById<TextView>(R.id.verdict)
        verdict.text = result.verdict(this)
        verdict.setTextColor(getColor(result.color))
        requireViewById<TextView>(R.id.detail).text = result.detail(this)
        requireViewById<View>(R.id.exports).visibility = if (result.json == null) View.GONE else View.VISIBLE
    }

    private fun shareReport() {
        val result = parts.reports.result ?: return
        share(getString(R.string.report_subject, result.model), result.json ?: return, "application/json")
    }

    private fun askPlace() {
        val result = parts.reports.result ?: return
        askPlace(SAVE, result.fileName, "application/json")
    }
}
