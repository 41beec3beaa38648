package org.llamaexport.app

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.Debug
import android.os.PowerManager

private const val KILO = 1024L

/** What the phone says of its memory and its heat. */
class Phone(context: Context) {
    private val activities = context.service(ActivityManager::class.java)
    private val power = context.service(PowerManager::class.java)

    /** Memory that the system can give without killing anything, in bytes. */
    fun availableBytes(): Long = memory().availMem

    /** Size of the phone's memory as it is advertised, in bytes. */
    fun totalBytes(): Long {
        val memory = memory()
        return if (Build.VERSION.SDK_INT >= 34) memory.advertisedMem else memory.totalMem
    }

    /** Memory that this app takes, its share of what is mapped included, in bytes; null: unknown. */
    fun appMemoryBytes(): Long? = Debug.getPss().takeIf { it > 0 }?.let { it * KILO }

    /** How hot the phone is, in the system's words; null: it does not say. */
    fun thermal(): String? {
        if (Build.VERSION.SDK_INT < 29) return null
        return THERMAL.getOrNull(power.currentThermalStatus)
    }

    /** Maker, model and system, such as `Google Pixel 8, Android 15`. */
    fun name(): String = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}"

    private fun memory() = ActivityManager.MemoryInfo().also { activities.getMemoryInfo(it) }

    private companion object {
        val THERMAL = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    }
}
