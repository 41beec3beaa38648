package org.llamaexport.app

import android.app.Notification
import android.content.pm.ServiceInfo

/** Holds the process until a model is fetched, and shows how far it is. */
class FetchService : HoldingService() {
    private val changed = ::look

    override val number: Int = 2
    override val type: Int = ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC
    override val channelName: Int = R.string.channel_fetch
    override val screen = ModelsActivity::class.java
    override val isNeeded: Boolean get() = parts.jobs.job != null

    override fun stopWork() = parts.jobs.stop()

    override fun listen(isOn: Boolean) =
        if (isOn) parts.jobs.addListener(changed) else parts.jobs.removeListener(changed)

    override fun describe(notice: Notification.Builder) {
        val job = parts.jobs.job
        notice.setContentTitle(getString(R.string.fetching, job?.name.orEmpty()))
        val progress = job?.progress
        if (progress != null) notice.setContentText(progressText(progress))
        notice.setProgress(PER_MILLE, progress?.perMille ?: 0, progress?.perMille == null)
    }
}
