package org.llamaexport.app

import android.app.AlertDialog
import android.app.Dialog
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.ListView
import android.widget.ProgressBar
import android.widget.TextView
import java.io.File

private const val FOLDER = 1
private const val ZIP = 2
private const val NAME = "name"

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
        buttons.addButton(getString(R.string.import_zip), R.style.App_Button_Outlined) { chooseZip() }
        buttons.addButton(getString(R.string.import_folder), R.style.App_Button_Outlined) { chooseFolder() }
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

    override fun onChosen(request: Int, place: Uri) {
        val begun = if (request == FOLDER) parts.jobs.importFolder(place) else parts.jobs.importZip(place)
        if (!begun) say(getString(R.string.one_at_a_time))
    }

    private fun chooseFolder() = choose(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), FOLDER)

    private fun chooseZip() = choose(
        Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*"), ZIP,
    )

    private fun askDownload(name: String?) {
        askForNotifications()
        ask(Ask.DOWNLOAD, Bundle().apply { putString(NAME, name) })
    }

    override fun makeDialog(question: Ask, about: Bundle): Dialog {
        val name = about.getString(NAME)
        if (question == Ask.DOWNLOAD) return DownloadDialog(this, parts).make(name)
        val folder = File(name.orEmpty())
        return AlertDialog.Builder(this)
            .setTitle(getString(R.string.delete_model, folder.name))
            .setMessage(R.string.delete_model_text)
            .setPositiveButton(R.string.delete) { _, _ -> delete(folder) }
            .setNegativeButton(R.string.cancel, null)
            .create()
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
            text.text = error?.inWords(this).orEmpty()
            return
        }
        val progress = job.progress
        bar.isIndeterminate = progress?.perMille == null
        bar.max = PER_MILLE
        bar.progress = progress?.perMille ?: 0
        text.text = if (progress == null) getString(R.string.fetching, job.name)
        else getString(R.string.fetching_of, job.name, progressText(progress))
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
            R.string.go_on to { goOn(name) },
            R.string.discard to { parts.jobs.discard(name, ::read) },
        ),
    )

    private fun goOn(name: String) {
        if (parts.jobs.job != null) return say(getString(R.string.one_at_a_time))
        askForNotifications()
        if (!parts.jobs.goOn(name)) askDownload(name)
    }

    private fun card(entry: ModelEntry): Card = when (entry) {
        is ModelEntry.Damaged -> Card(
            key = entry.folder.path,
            title = entry.folder.name,
            detail = entry.error.inWords(this),
            isBad = true,
            buttons = listOf(R.string.delete to { askDelete(entry) }),
        )
        is ModelEntry.Sound -> soundCard(entry)
    }

    private fun soundCard(entry: ModelEntry.Sound): Card {
        val host = parts.host.state
        val isLoaded = host.loaded?.folder == entry.folder
        val status = when {
            isLoaded -> getString(R.string.in_memory)
            (host as? HostState.Loading)?.folder == entry.folder -> getString(R.string.being_loaded)
            else -> null
        }
        val load = when {
            isLoaded -> R.string.unload to { unload() }
            else -> R.string.load to { load(entry) }
        }
        return Card(
            key = entry.folder.path,
            title = entry.folder.name,
            detail = listOfNotNull(formatText(entry.manifest), status).joinToString(" · "),
            buttons = listOf(load, R.string.delete to { askDelete(entry) }),
        )
    }

    private fun load(entry: ModelEntry.Sound) {
        if (isBusy()) return
        if (entry.manifest.target !in DeviceEngines.targets) return say(getString(R.string.not_for_android))
        loadGated(entry.folder, entry.manifest)
    }

    private fun unload() {
        if (isBusy()) return
        parts.host.unload()
    }

    private fun isBusy(): Boolean {
        if (parts.host.state.isFree) return false
        say(getString(R.string.model_busy))
        return true
    }

    /** Whether the model's thread has its files just now. */
    private fun isUsed(folder: File): Boolean {
        val host = parts.host.state
        val used = (host as? HostState.Loading)?.folder ?: host.loaded?.folder
        return used == folder && isBusy()
    }

    private fun askDelete(entry: ModelEntry) {
        if (isUsed(entry.folder)) return
        ask(Ask.DELETE, Bundle().apply { putString(NAME, entry.folder.path) })
    }

    private fun delete(folder: File) {
        // It may have been loaded while the question stood there.
        if (isUsed(folder)) return
        parts.delete(folder) { isGone ->
            if (!isGone) say(getString(R.string.not_deleted, folder.name))
            read()
        }
    }
}
