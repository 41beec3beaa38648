package org.llamaexport.app

import android.app.Notification
import android.app.NotificationManager
import android.content.ComponentName
import android.content.pm.PackageManager
import android.content.pm.ServiceInfo
import java.io.File
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Test
import org.llamaexport.core.BundleAddress
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ServiceController

/** The services that hold the process while something is done and another app is on the screen. */
class ServicesTest : AppTest() {
    private inline fun <reified T : HoldingService> started(): ServiceController<T> {
        val intent = shadowOf(app).nextStartedService
        assertEquals(T::class.java.name, intent.component?.className)
        return Robolectric.buildService(T::class.java, intent).create()
    }

    private fun HoldingService.shown(): Notification = shadowOf(this).lastForegroundNotification

    private val Notification.title get() = extras.getString(Notification.EXTRA_TITLE)

    @Test
    fun `an answer is held by a service until it is written`() {
        loadFake()
        fake.gate = Semaphore(0)
        parts.session.send("Hello")
        val service = started<GenerationService>()
        service.startCommand(0, 1)
        assertEquals("The model is answering", service.get().shown().title)
        val shadow = shadowOf(service.get())
        assertFalse(shadow.isStoppedBySelf)
        fake.gate?.release(10_000)
        waitFor("the answer") { parts.session.pending == null }
        assertTrue(shadow.isStoppedBySelf)
    }

    @Test
    fun `a benchmark is held, and stopped, by the service too`() {
        loadFake()
        val goesOn = Semaphore(0)
        fake.onStep = { goesOn.acquire() }
        assertTrue(parts.reports.measure(isQuick = true))
        val service = started<GenerationService>()
        service.startCommand(0, 1)
        assertTrue("Measuring" in service.get().shown().title.orEmpty())
        val stop = shadowOf(service.get().shown().actions.single().actionIntent).savedIntent
        service.get().onStartCommand(stop, 0, 2)
        goesOn.release(10_000)
        waitFor("the stop") { parts.reports.running == null }
        assertTrue(shadowOf(service.get()).isStoppedBySelf)
        assertEquals("It was stopped.", parts.reports.result?.verdict?.invoke(app))
    }

    @Test
    fun `a service ends neither before it was shown, nor while it is started once more`() {
        loadFake()
        parts.session.send("Hello")
        waitFor("the answer") { parts.session.pending == null }
        val service = started<GenerationService>()
        val shadow = shadowOf(service.get())
        parts.session.refresh()
        assertFalse(shadow.isStoppedBySelf, "the system ends an app whose service ends before it is shown")
        service.startCommand(0, 7)
        assertEquals(7, shadow.stopSelfId)
    }

    @Test
    fun `a download is held by a service that shows how far it is and can stop it`() {
        waitFor("the beginning") { parts.hasBegun }
        val goesOn = CountDownLatch(1)
        val bundle = writeFakeBundle(File(app.cacheDir, "b"))
        val wait = { name: String ->
            if (name == "tokenizer.json") goesOn.await(20, TimeUnit.SECONDS)
            null
        }
        TestServer(bundle, before = wait).use { server ->
            assertTrue(parts.jobs.download(BundleAddress(server.base), "far"))
            val service = started<FetchService>()
            service.startCommand(0, 1)
            assertEquals("Fetching far…", service.get().shown().title)
            waitFor("some bytes") { parts.jobs.job?.progress != null }
            val manager = app.getSystemService(NotificationManager::class.java)
            waitFor("the figures") {
                pass(ms = 500)
                // Whoever changes something makes the service look again.
                parts.jobs.dismiss()
                val now = shadowOf(manager).getNotification(2)
                "4 MB" in now.extras.getString(Notification.EXTRA_TEXT).orEmpty()
            }
            val stop = shadowOf(service.get().shown().actions.single().actionIntent).savedIntent
            service.get().onStartCommand(stop, 0, 2)
            goesOn.countDown()
            waitFor("the stop") { parts.jobs.job == null }
            assertTrue(shadowOf(service.get()).isStoppedBySelf)
            assertNull(parts.jobs.error)
            assertEquals(listOf("far"), parts.jobs.unfinished())
        }
    }

    @Test
    fun `a download ends when the system grants its service no more time, and can go on`() {
        waitFor("the beginning") { parts.hasBegun }
        val goesOn = CountDownLatch(1)
        val wait = { _: String ->
            goesOn.await(20, TimeUnit.SECONDS)
            null
        }
        TestServer(writeFakeBundle(File(app.cacheDir, "b")), before = wait).use { server ->
            assertTrue(parts.jobs.download(BundleAddress(server.base), "far"))
            val service = started<FetchService>()
            service.startCommand(0, 1)
            service.get().onTimeout(1, ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC)
            assertTrue(shadowOf(service.get()).isStoppedBySelf)
            goesOn.countDown()
            waitFor("the stop") { parts.jobs.job == null }
            assertEquals(listOf("far"), parts.jobs.unfinished())
        }
    }

    @Test
    fun `the manifest grants each service what it asks for`() {
        val manager = app.packageManager
        val info = manager.getPackageInfo(app.packageName, PackageManager.GET_PERMISSIONS)
        val permissions = info.requestedPermissions.orEmpty().map { it.substringAfterLast('.') }
        assertTrue("FOREGROUND_SERVICE_DATA_SYNC" in permissions && "FOREGROUND_SERVICE" in permissions)
        val kinds = mapOf(
            FetchService::class.java to ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC,
            GenerationService::class.java to ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE,
        )
        for ((service, kind) in kinds) {
            assertEquals(kind, manager.getServiceInfo(ComponentName(app, service), 0).foregroundServiceType)
        }
    }
}
