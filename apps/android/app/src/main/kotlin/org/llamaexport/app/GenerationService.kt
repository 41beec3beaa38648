package org.llamaexport.app

import android.app.Notification
import android.content.pm.ServiceInfo

/** Holds the process until an answer is written. */
class GenerationService : HoldingService() {
    private val changed = ::look

    override val number: Int = 1
    override val type: Int = ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE
    override val channelName: Int = R.string.channel_answer
    override val screen = ChatActivity::class.java
    override val isNeeded: Boolean get() = parts.session.pending != null

    override fun stopWork() = parts.session.stop()

    override fun listen(isOn: Boolean) =
        if (isOn) parts.session.addListener(changed) else parts.session.removeListener(changed)

    override fun describe(notice: Notification.Builder) {
        notice.setContentTitle(getString(R.string.answering))
    }
}
