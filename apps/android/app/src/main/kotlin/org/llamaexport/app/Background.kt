package org.llamaexport.app

import android.os.Handler
import android.os.Looper
import java.io.IOException
import java.util.concurrent.Executors
import org.llamaexport.core.AppError
import org.llamaexport.core.BadInput
import org.llamaexport.core.ErrorKind

/** A thread for what reads and writes files, one thing after the other. */
class Background(name: String, private val log: AppLog) {
    private val main = Handler(Looper.getMainLooper())
    private val executor = Executors.newSingleThreadExecutor { Thread(it, name) }

    /** Work on the thread, and hear on the main thread what came of it. */
    fun <T> run(work: () -> T, onEnd: (Outcome<T>) -> Unit = {}) = executor.execute {
        val outcome = try {
            Outcome(work(), null)
        } catch (error: AppError) {
            log.write("${Thread.currentThread().name}: ${error.message}", error)
            Outcome(null, error)
        } catch (error: IOException) {
            log.write("${Thread.currentThread().name}: ${error.message}", error)
            val message = "a file cannot be read or written: ${error.message}"
            Outcome(null, BadInput(message, "Try again.", error, ErrorKind.STORAGE))
        } catch (error: RuntimeException) {
            log.write("${Thread.currentThread().name}: $error", error)
            Outcome(null, BadInput("it failed: $error", "Share the log with the makers of this app.", error))
        }
        main.post { onEnd(outcome) }
    }
}
