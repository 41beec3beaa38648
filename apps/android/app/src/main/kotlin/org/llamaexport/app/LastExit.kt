package org.llamaexport.app

import android.app.ActivityManager
import android.app.ApplicationExitInfo
import android.content.Context
import android.os.Build

private const val MEMORY_LIMITER = "MemoryLimiter"

/**
 * Why the system or a fault ended the app while it was used.
 *
 * @property reason number of the system's
 * @property description the system's own words; often empty
 * @property words resource that says it in the user's words
 */
data class LastExit(val reason: Int, val description: String, val words: Int) {
    companion object {
        /** Return how the app ended last time, once; null: as it should, or nobody knows. */
        fun find(context: Context, settings: AppSettings): LastExit? {
            if (Build.VERSION.SDK_INT < 30) return null
            val manager = context.service(ActivityManager::class.java)
            val last = manager.getHistoricalProcessExitReasons(null, 0, 1).firstOrNull() ?: return null
            if (last.timestamp <= settings.shownExitMs) return null
            settings.shownExitMs = last.timestamp
            // What ends in the background ends without a loss.
            if (last.importance > ActivityManager.RunningAppProcessInfo.IMPORTANCE_PERCEPTIBLE) return null
            val description = last.description.orEmpty()
            val words = wordsOf(last.reason, description) ?: return null
            return LastExit(last.reason, description, words)
        }

        /** Return the resource that says a reason; null: the user ended it, or it ended itself. */
        fun wordsOf(reason: Int, description: String): Int? = when (reason) {
            ApplicationExitInfo.REASON_LOW_MEMORY -> R.string.exit_memory
            ApplicationExitInfo.REASON_CRASH -> R.string.exit_crash
            ApplicationExitInfo.REASON_CRASH_NATIVE -> R.string.exit_native
            ApplicationExitInfo.REASON_ANR -> R.string.exit_frozen
            ApplicationExitInfo.REASON_EXCESSIVE_RESOURCE_USAGE -> R.string.exit_resources
            ApplicationExitInfo.REASON_SIGNALED -> R.string.exit_signal
            ApplicationExitInfo.REASON_OTHER ->
                if (MEMORY_LIMITER in description) R.string.exit_memory else R.string.exit_other
            else -> null
        }
    }
}
