package org.llamaexport.app

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.IBinder

private const val CHANNEL = "answer"
private const val NOTICE = 1
private const val STOP = "org.llamaexport.app.STOP"

/** Keeps the process alive until an answer is written, also when another app is on the screen. */
class GenerationService : Service() {
    private val listener = ::look
    private val session get() = (application as LlamaApp).parts.session

    override fun onCreate() {
        super.onCreate()
        session.addListener(listener)
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        // The system ends an app that asked for a service in the foreground and did not show it.
        val notice = notice()
        if (Build.VERSION.SDK_INT >= 34) {
            startForeground(NOTICE, notice, ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE)
        } else {
            startForeground(NOTICE, notice)
        }
        if (intent?.action == STOP) session.stop()
        look()
        return START_NOT_STICKY
    }

    override fun onDestroy() {
        session.removeListener(listener)
        super.onDestroy()
    }

    override fun onBind(intent: Intent?): IBinder? = null

    private fun look() {
        if (session.pending != null) return
        stopForeground(STOP_FOREGROUND_REMOVE)
        stopSelf()
    }

    private fun notice(): Notification {
        val manager = service(NotificationManager::class.java)
        val name = getString(R.string.channel_answer)
        val channel = NotificationChannel(CHANNEL, name, NotificationManager.IMPORTANCE_LOW)
        manager.createNotificationChannel(channel)
        val chat = Intent(this, ChatActivity::class.java)
        val show = PendingIntent.getActivity(this, 0, chat, PendingIntent.FLAG_IMMUTABLE)
        val ask = Intent(this, GenerationService::class.java).setAction(STOP)
        val stop = PendingIntent.getService(this, 0, ask, PendingIntent.FLAG_IMMUTABLE)
        return Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.ic_send)
            .setContentTitle(getString(R.string.answering))
            .setContentIntent(show)
            .addAction(Notification.Action.Builder(null, getString(R.string.stop), stop).build())
            .setOngoing(true)
            .build()
    }

    companion object {
        /** Show that an answer is being written; a system that refuses lets it end on the screen. */
        fun start(context: Context, log: AppLog) {
            try {
                context.startForegroundService(Intent(context, GenerationService::class.java))
            } catch (error: IllegalStateException) {
                log.write("no service in the foreground now: ${error.message}")
            }
        }
    }
}
