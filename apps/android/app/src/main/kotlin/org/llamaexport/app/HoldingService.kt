package org.llamaexport.app

import android.app.Activity
import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.os.Build
import android.os.IBinder
import android.os.SystemClock

private const val STOP = "org.llamaexport.app.STOP"

// The system drops what comes faster.
private const val SHOW_EVERY_MS = 500L

/** Keeps the process alive while something is done, also when another app is on the screen. */
abstract class HoldingService : Service() {
    protected val parts: Parts get() = (application as LlamaApp).parts

    /** Number of the notification, which is also its channel's. */
    protected abstract val number: Int

    /** The system's number for what is done, as the manifest has it; older systems look there. */
    protected abstract val type: Int

    /** Name of the notification's channel, as the system's settings show it. */
    protected abstract val channelName: Int

    /** Screen that a touch of the notification shows. */
    protected abstract val screen: Class<out Activity>

    /** Whether it is still being done. */
    protected abstract val isNeeded: Boolean

    /** End what is done as soon as it can be ended. */
    protected abstract fun stopWork()

    /** Begin, or cease, to call [look] whenever something changes. */
    protected abstract fun listen(isOn: Boolean)

    /** Say on the notification what is done. */
    protected abstract fun describe(notice: Notification.Builder)

    private var lastStart = 0
    private var isShown = false
    private var shownMs = 0L

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        lastStart = startId
        try {
            // The system ends an app that asked for a service in the foreground and did not show it.
            if (Build.VERSION.SDK_INT >= 34) startForeground(number, notice(), type)
            else startForeground(number, notice())
        } catch (error: IllegalStateException) {
            parts.log.write("the service cannot be in the foreground now: ${error.message}")
            stopSelf(startId)
            return START_NOT_STICKY
        }
        if (!isShown) listen(isOn = true)
        isShown = true
        if (intent?.action == STOP) stopWork()
        look()
        return START_NOT_STICKY
    }

    override fun onDestroy() {
        if (isShown) listen(isOn = false)
        super.onDestroy()
    }

    override fun onBind(intent: Intent?): IBinder? = null

    /** From API 35 on the system grants some kinds so many hours a day, and ends an app that goes on. */
    override fun onTimeout(startId: Int, fgsType: Int) {
        parts.log.write("the system grants the service no more time")
        stopWork()
        end()
    }

    /** Look whether it is still done, and how far it is. */
    protected fun look() {
        if (!isNeeded) return end()
        val now = SystemClock.uptimeMillis()
        if (now - shownMs < SHOW_EVERY_MS) return
        shownMs = now
        service(NotificationManager::class.java).notify(number, notice())
    }

    private fun end() {
        stopForeground(STOP_FOREGROUND_REMOVE)
        // Where it was started once more meanwhile, that start must still be answered.
        stopSelf(lastStart)
    }

    private fun notice(): Notification {
        val manager = service(NotificationManager::class.java)
        val channel = "$number"
        val name = getString(channelName)
        manager.createNotificationChannel(
            NotificationChannel(channel, name, NotificationManager.IMPORTANCE_LOW),
        )
        val show = PendingIntent.getActivity(this, 0, Intent(this, screen), PendingIntent.FLAG_IMMUTABLE)
        val ask = Intent(this, javaClass).setAction(STOP)
        val stop = PendingIntent.getService(this, 0, ask, PendingIntent.FLAG_IMMUTABLE)
        return Notification.Builder(this, channel)
            .setSmallIcon(R.drawable.ic_send)
            .setContentIntent(show)
            .addAction(Notification.Action.Builder(null, getString(R.string.stop), stop).build())
            .setOngoing(true)
            .setOnlyAlertOnce(true)
            .also(::describe)
            .build()
    }

    companion object {
        /** Start one; where the system refuses, the work goes on as long as the app is on the screen. */
        internal inline fun <reified T : HoldingService> start(context: Context, log: AppLog) {
            try {
                context.startForegroundService(Intent(context, T::class.java))
            } catch (error: IllegalStateException) {
                log.write("no service in the foreground now: ${error.message}")
            }
        }
    }
}
