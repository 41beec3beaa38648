package org.llamaexport.app

import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.content.Intent
import java.io.File
import org.llamaexport.core.Bundle
import org.llamaexport.core.ConversationStore
import org.llamaexport.core.Downloader
import org.llamaexport.core.Manifest
import org.llamaexport.core.MemoryAnswer

/** The app: everything that outlives a screen is in [parts]. */
open class LlamaApp : Application() {
    /** What loads models. */
    open val engines: Engines get() = DeviceEngines

    lateinit var parts: Parts
        internal set

    override fun onCreate() {
        super.onCreate()
        parts = Parts(this, engines)
        parts.begin()
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        // From API 34 on only the levels of the background are sent.
        val isShort = level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND || level == RUNNING_CRITICAL
        if (isShort) parts.host.unload(freed = true)
    }

    private companion object {
        const val RUNNING_CRITICAL = 15
    }
}

/** The app's parts, made once. */
class Parts(private val app: Application, engines: Engines) {
    val log = AppLog(File(app.filesDir, "log.txt"))
    val settings = AppSettings(app.getSharedPreferences("settings", Context.MODE_PRIVATE))
    val phone = Phone(app)
    val files = Background("files", log)
    val library = ModelLibrary(File(app.filesDir, "models"), app.getExternalFilesDir("models"))
    val jobs = ModelJobs(
        library, settings, app.contentResolver, Background("jobs", log), files, Downloader(library.own),
    )
    val host = ModelHost(engines, log)
    val store = ConversationStore(File(app.filesDir, "conversations"))
    val session = Session(store, settings, host, Answering(host, phone), files)

    val reports = Reports(host, engines, phone)

    /** Why the app ended last time, to be shown once; null: nothing to say. */
    var lastExit: LastExit? = null

    /** Whether the first look at the storage is done. */
    var hasBegun: Boolean = false
        private set

    /** Name of the model with which the app ended while it was loaded; null: none. */
    var endedLoading: String? = null

    /** Take up what was there: the conversation, the last model, why the app ended. */
    fun begin() {
        val hold = { HoldingService.start<GenerationService>(app, log) }
        session.onBegin = hold
        reports.onBegin = hold
        jobs.onBegin = { HoldingService.start<FetchService>(app, log) }
        lastExit = LastExit.find(app, settings)
        endedLoading = settings.loading.takeIf { it.isNotEmpty() }?.let { File(it).name }
        settings.loading = ""
        settings.conversation.takeIf { it.isNotEmpty() }?.let { session.open(it) }
        files.run({
            val demo = library.installDemo(DemoFiles(app.assets))
            val last = settings.model.takeIf { it.isNotEmpty() }?.let(::File)?.takeIf { it.isDirectory }
            (last ?: demo)?.let { Bundle.open(it) }
        }) { outcome ->
            hasBegun = true
            val bundle = outcome.value
            if (outcome.error != null) session.fail(outcome.error)
            val isSafe = bundle != null && endedLoading == null && gate(bundle.manifest) is MemoryAnswer.Fits
            if (bundle != null && isSafe) load(bundle.folder)
            session.refresh()
        }
    }

    /** Ask whether there is memory for a model. */
    fun gate(manifest: Manifest): MemoryAnswer =
        askGate(manifest, settings.contextTokens, phone.availableBytes())

    /** Load a model, with the context of the settings or a shorter one. */
    fun load(folder: File, contextTokens: Int = settings.contextTokens) {
        if (!host.state.isFree) return
        settings.loading = folder.path
        endedLoading = null
        host.load(folder, contextTokens, library.isUnchecked(folder)) { isThere ->
            settings.loading = ""
            settings.model = if (isThere) folder.path else ""
        }
    }

    /** Delete a model, which leaves the memory first; [onEnd] is told whether it is gone. */
    fun delete(folder: File, onEnd: (Boolean) -> Unit) {
        if (host.state.loaded?.folder == folder) host.unload()
        if (settings.model == folder.path) settings.model = ""
        files.run({ library.delete(folder) }) { outcome -> onEnd(outcome.value == true) }
    }

    /** Return what a person who mends the app must know. */
    fun report(log: String): String = buildString {
        append(phone.name()).append("\n")
        append("memory: ${phone.totalBytes()} bytes, available: ${phone.availableBytes()} bytes\n")
        append("model: ${host.state.loaded?.name ?: "none"}\n")
        lastExit?.let { append("last end: ${it.reason} ${it.description}\n") }
        append("\n").append(log.takeLast(MOST_LOG_CHARS))
    }

    private companion object {
        // What is shared goes through a buffer of a megabyte.
        const val MOST_LOG_CHARS = 100_000
    }
}

/** Start a screen. */
internal inline fun <reified T> Context.show() = startActivity(Intent(this, T::class.java))
