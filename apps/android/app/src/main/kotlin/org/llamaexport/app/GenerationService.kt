package org.llamaexport.app

import android.app.Notification
import android.content.pm.ServiceInfo

/** Holds the process until the model is done: an answer is written, or the model is verified or measured. */
class GenerationService : HoldingService() {
    private val changed = ::look

    override val number: Int = 1
    override val type: Int = ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE
    override val channelName: Int = R.string.channel_answer
    override val screen = ChatActivity::class.java
    override val isNeeded: Boolean get() = parts.session.pending != null || parts.reports.running != null

    override fun stopWork() = parts.host.stop()

    override fun listen(isOn: Boolean) {
        if (isOn) {
            parts.session.addListener(changed)
            parts.reports.addListener(changed)
        } else {
            parts.session.removeListener(changed)
            parts.reports.removeListener(changed)
        }
    }

    override fun describe(notice: Notification.Builder) {
        notice.setContentTitle(parts.reports.running?.words(this) ?: getString(R.string.answering))
    }
}
