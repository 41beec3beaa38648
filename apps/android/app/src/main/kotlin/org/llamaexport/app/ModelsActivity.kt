package org.llamaexport.app

import android.app.Activity
import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.ListView
import android.widget.ProgressBar
import android.widget.TextView

private const val FOLDER = 1
private const val ZIP = 2
private const val PER_MILLE = 1000

/** The models on this phone, and the ways to bring more. */
class ModelsActivity : ScreenActivity() {
    private lateinit var rows: CardRows
    private lateinit var notice: View
    private val look = ::render
    private val fetched = ::refresh
    private var entries: List<ModelEntry> = emptyList()
    private var unfinished: List<String> = emptyList()
    private var hasRead = false
    private var wasFetching = false

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        showScreen(R.layout.list)
        val buttons = requireViewById<ViewGroup>(R.id.buttons)
        buttons.addButton(getString(R.string.download), R.style.App_Button_Filled) { askDownload(null) }
        buttons.addButton(getString(R.string.import_zip), R.style.App_Button_Outlined) { choose(ZIP) }
        buttons.addButton(getString(R.string.import_folder), R.style.App_Button_Outlined) { choose(FOLDER) }
        rows = CardRows(this)
        requireViewById<ListView>(R.id.rows).adapter = rows
        notice = requireViewById(R.id.notice)
    }

    override fun onStart() {
        super.onStart()
        parts.host.addListener(look)
        parts.jobs.addListener(fetched)
        read()
        render()
    }

    override fun onStop() {
        parts.host.removeListener(look)
        parts.jobs.removeListener(fetched)
        super.onStop()
    }

    @Deprecated("The framework's own way; the newer one is of a library.")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val place = data?.data ?: return
        if (result != Activity.RESULT_OK) return
        val begun = if (request == FOLDER) parts.jobs.importFolder(place) else parts.jobs.importZip(place)
        if (!begun) say(getString(R.string.one_at_a_time))
    }

    private fun choose(request: Int) {
        val ask = if (request == FOLDER) Intent(Intent.ACTION_OPEN_DOCUMENT_TREE)
        else Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
        try {
            @Suppress("DEPRECATION")
            startActivityForResult(ask, request)
        } catch (_: ActivityNotFoundException) {
            say(getString(R.string.no_file_app))
        }
    }

    private fun askDownload(name: String?) {
        DownloadDialog(this, parts).show(name) { address, wanted ->
            if (!parts.jobs.download(address, wanted)) say(getString(R.string.one_at_a_time))
        }
    }

    private fun refresh() {
        val isFetching = parts.jobs.job != null
        if (wasFetching != isFetching) read()
        wasFetching = isFetching
        render()
    }

    private fun read() = parts.files.run({ parts.library.list() to parts.jobs.unfinished() }) { outcome ->
        val found = outcome.value ?: return@run
        entries = found.first
        unfinished = found.second
        hasRead = true
        render()
    }

    private fun render() {
        renderJob()
        val fetching = parts.jobs.job?.name
        rows.show(unfinished.filter { it != fetching }.map(::unfinishedCard) + entries.map(::card))
        val empty = requireViewById<TextView>(R.id.empty)
        empty.visibility = if (hasRead && rows.count == 0) View.VISIBLE else View.GONE
        empty.setText(R.string.no_models)
    }

    private fun renderJob() {
        val job = parts.jobs.job
        val error = parts.jobs.error ?: (parts.host.state as? HostState.Failed)?.error
        notice.visibility = if (job == null && error == null) View.GONE else View.VISIBLE
        val bar = requireViewById<ProgressBar>(R.id.progress)
        bar.visibility = if (job == null) View.GONE else View.VISIBLE
        val buttons = requireViewById<ViewGroup>(R.id.notice_buttons)
        val text = requireViewById<TextView>(R.id.notice_text)
        val key = if (job != null) "job" else "error"
        if (buttons.tag != key) {
            buttons.removeAllViews()
            buttons.tag = key
            if (job != null) {
                buttons.addButton(getString(R.string.stop)) { parts.jobs.stop() }
            } else {
                buttons.addButton(getString(R.string.ok)) { dismiss() }
                buttons.addButton(getString(R.string.share_log)) { shareLog() }
            }
        }
        if (job == null) {
            text.text = error?.inWords().orEmpty()
            return
        }
        val progress = job.progress
        bar.isIndeterminate = progress == null || progress.sizeBytes <= 0
        bar.max = PER_MILLE
        if (progress != null && progress.sizeBytes > 0) {
            bar.progress = (progress.doneBytes * PER_MILLE / progress.sizeBytes).toInt()
        }
        text.text = if (progress == null) getString(R.string.fetching, job.name)
        else getString(
            R.string.fetching_of, job.name, sizeText(progress.doneBytes), sizeText(progress.sizeBytes),
        )
    }

    private fun dismiss() {
        parts.jobs.dismiss()
        if (parts.host.state is HostState.Failed) parts.host.unload()
        render()
    }

    private fun unfinishedCard(name: String) = Card(
        key = "unfinished/$name",
        title = name,
        detail = getString(R.string.unfinished),
        buttons = listOf(
            R.string.go_on to { if (!parts.jobs.goOn(name)) askDownload(name) },
            R.string.discard to { parts.jobs.discard(name, ::read) },
        ),
    )

    private fun card(entry: ModelEntry): Card = when (entry) {
        is ModelEntry.Damaged -> Card(
            key = entry.folder.path,
            title = entry.folder.name,
            detail = entry.error.inWords(),
            isBad = true,
            buttons = listOf(R.string.delete to { askDelete(entry) }),
        )
        is ModelEntry.Sound -> soundCard(entry)
    }

    private fun soundCard(entry: ModelEntry.Sound): Card {
        val host = parts.host.state
        val name = entry.folder.name
        val isLoaded = host.loaded?.name == name
        val status = when {
            isLoaded -> getString(R.string.in_memory)
            host is HostState.Loading && host.name == name -> getString(R.string.being_loaded)
            else -> null
        }
        val load = when {
            isLoaded -> R.string.unload to { unload() }
            else -> R.string.load to { load(entry) }
        }
        return Card(
            key = entry.folder.path,
            title = name,
            detail = listOfNotNull(formatText(entry.manifest), status).joinToString(" · "),
            buttons = listOf(load, R.string.delete to { askDelete(entry) }),
        )
    }

    private fun load(entry: ModelEntry.Sound) {
        if (isBusy()) return
        if (entry.manifest.target !in DeviceEngines.targets) return say(getString(R.string.not_for_android))
        loadGated(parts, entry.folder, entry.manifest)
    }

    private fun unload() {
        if (isBusy()) return
        parts.host.unload()
    }

    private fun isBusy(): Boolean {
        val state = parts.host.state
        val isBusy = state is HostState.Busy || state is HostState.Loading
        if (isBusy) say(getString(R.string.model_busy))
        return isBusy
    }

    private fun askDelete(entry: ModelEntry) {
        if (parts.host.state.loaded?.name == entry.folder.name && isBusy()) return
        AlertDialog.Builder(this)
            .setTitle(getString(R.string.delete_model, entry.folder.name))
            .setMessage(R.string.delete_model_text)
            .setPositiveButton(R.string.delete) { _, _ -> delete(entry) }
            .setNegativeButton(R.string.cancel, null)
            .show()
    }

    private fun delete(entry: ModelEntry) {
        if (parts.host.state.loaded?.name == entry.folder.name) parts.host.unload()
        parts.files.run({ parts.library.delete(entry.folder) }) { outcome ->
            if (outcome.value != true) say(getString(R.string.not_deleted, entry.folder.name))
            read()
        }
    }
}
