package org.llamaexport.app

import android.os.Handler
import android.os.Looper
import java.io.File
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import org.llamaexport.core.AppError
import org.llamaexport.core.Bundle
import org.llamaexport.core.EngineError
import org.llamaexport.core.ErrorKind
import org.llamaexport.core.Stop

internal const val TAKE_LESS =
    "Choose a shorter context in the settings, close other apps, or take a smaller model."
private const val PROGRESS_BYTES = 32L * 1024 * 1024

/**
 * Owns the one model that is in memory, and the one thread that may touch it.
 *
 * Every function is called on the main thread and returns at once; [state] changes there too.
 *
 * @param engines what opens a model
 * @param log where failures go
 */
class ModelHost(private val engines: Engines, private val log: AppLog) {
    private val main = Handler(Looper.getMainLooper())
    private val executor: ExecutorService = Executors.newSingleThreadExecutor { Thread(it, "model") }
    private val listeners = CopyOnWriteArrayList<() -> Unit>()
    private var stop = Stop()

    // The model's thread alone reads and writes it.
    private var open: OpenModel? = null

    /** What the thread is at. */
    var state: HostState = HostState.Idle()
        private set(value) {
            field = value
            listeners.forEach { it() }
        }

    fun addListener(listener: () -> Unit) {
        listeners += listener
    }

    fun removeListener(listener: () -> Unit) {
        listeners -= listener
    }

    /**
     * Put a model into memory in place of the one that is there.
     *
     * @param folder folder of its bundle
     * @param contextTokens largest number of positions that are wanted
     * @param checksHashes whether every file is compared with the manifest first
     * @param onEnd told whether it is there
     */
    fun load(folder: File, contextTokens: Int, checksHashes: Boolean, onEnd: (Boolean) -> Unit = {}) {
        requireMain()
        if (!state.isFree) return
        val stop = newStop()
        state = HostState.Loading(folder)
        onThread {
            val result = attempt("load ${folder.name}") {
                closeOpen()
                val bundle = Bundle.open(folder)
                if (checksHashes && !checkHashes(bundle, stop)) return@attempt null
                openAgain(bundle, contextTokens)
            }
            main.post {
                val model = result.value?.info
                state = when {
                    result.error != null -> HostState.Failed(folder.name, result.error)
                    model == null -> HostState.Idle()
                    else -> HostState.Ready(model)
                }
                onEnd(model != null)
            }
        }
    }

    /** Take the model out of memory; [freed]: because the system needs it. */
    fun unload(freed: Boolean = false) {
        requireMain()
        val name = (state as? HostState.Ready)?.model?.name
        // What could not be loaded takes no memory, and why must be read first.
        if (name == null && (freed || state !is HostState.Failed)) return
        state = HostState.Idle(if (freed) name else null)
        onThread { attempt("unload") { closeOpen() } }
    }

    /**
     * Work with the model on its thread.
     *
     * @param what what is done, for the log
     * @param work gets the model and the wish to stop; it never runs on the main thread
     * @param onEnd told on the main thread what came of it, or the error
     * @return false where no model is ready, and nothing was begun
     */
    fun <T> work(what: String, work: (OpenModel, Stop) -> T, onEnd: (Outcome<T>) -> Unit): Boolean {
        requireMain()
        val model = (state as? HostState.Ready)?.model ?: return false
        val stop = newStop()
        state = HostState.Busy(model)
        onThread {
            val result = attempt(what) {
                val there = open ?: throw EngineError("no model is in memory", "Load one.")
                work(there, stop)
            }
            main.post {
                state = HostState.Ready(model)
                onEnd(result)
            }
        }
        return true
    }

    /**
     * Work with the bundle of the loaded model while the model itself is out of memory; it is loaded
     * again at the end.
     *
     * @param work gets the bundle and the wish to stop, on the model's thread
     * @param onEnd as [work]'s
     * @return as [work]
     */
    fun <T> workAlone(what: String, work: (Bundle, Stop) -> T, onEnd: (Outcome<T>) -> Unit): Boolean {
        requireMain()
        val model = (state as? HostState.Ready)?.model ?: return false
        val stop = newStop()
        state = HostState.Busy(model)
        onThread {
            val bundle = open?.bundle
            val result = attempt(what) {
                closeOpen()
                work(bundle ?: throw EngineError("no model is in memory", "Load one."), stop)
            }
            val again = attempt("load ${model.name}") {
                openAgain(checkNotNull(bundle), model.contextTokens).info
            }
            main.post {
                state = again.value?.let { HostState.Ready(it) }
                    ?: HostState.Failed(model.name, checkNotNull(again.error))
                onEnd(result)
            }
        }
        return true
    }

    /** End what runs as soon as it can be done. */
    fun stop() = stop.request()

    private fun newStop() = Stop().also { stop = it }

    private fun checkHashes(bundle: Bundle, stop: Stop): Boolean {
        val size = bundle.manifest.sizeBytes
        var done = 0L
        var told = 0L
        return bundle.checkHashes { count ->
            done += count
            if (done - told >= PROGRESS_BYTES) {
                told = done
                val now = done
                val loading = HostState.Loading(bundle.folder, now, size)
                main.post { if (state is HostState.Loading) state = loading }
            }
            !stop.isRequested
        }
    }

    private fun openAgain(bundle: Bundle, contextTokens: Int): OpenModel =
        OpenModel.open(bundle, engines, contextTokens).also { open = it }

    private fun closeOpen() {
        val old = open
        open = null
        old?.close()
    }

    private fun onThread(work: () -> Unit) = executor.execute {
        check(Looper.myLooper() != Looper.getMainLooper()) { "the model's thread is the main thread" }
        work()
    }

    private fun <T> attempt(what: String, work: () -> T): Outcome<T> = try {
        Outcome(work(), null)
    } catch (error: AppError) {
        log.write("$what failed", error)
        Outcome(null, error)
    } catch (error: OutOfMemoryError) {
        log.write("$what failed", error)
        val message = "there is not enough memory to $what"
        Outcome(null, EngineError(message, TAKE_LESS, error, ErrorKind.NO_MEMORY))
    } catch (error: Exception) {
        // A file that cannot be read, or a fault of this app's: said and logged like the others, so that
        // no conversation is lost.
        log.write("$what failed", error)
        Outcome(null, EngineError("$what failed: $error", "Share the log with the app's makers.", error))
    }
}

/** What came of a piece of work: a value, or the error. */
class Outcome<out T>(val value: T?, val error: AppError?)

/** Refuse a call that is not made on the main thread. */
internal fun requireMain() = check(Looper.myLooper() == Looper.getMainLooper()) {
    "expected the main thread, found ${Thread.currentThread().name}"
}
