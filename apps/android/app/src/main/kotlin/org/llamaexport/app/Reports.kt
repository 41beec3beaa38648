package org.llamaexport.app

import android.content.Context
import android.os.Build
import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import java.io.File
import java.util.concurrent.CopyOnWriteArrayList
import org.llamaexport.core.AppError
import org.llamaexport.core.BenchBundle
import org.llamaexport.core.BenchDevice
import org.llamaexport.core.BenchHost
import org.llamaexport.core.BenchPlan
import org.llamaexport.core.BenchResult
import org.llamaexport.core.BenchThreads
import org.llamaexport.core.GoldenVerdict
import org.llamaexport.core.MANIFEST_NAME
import org.llamaexport.core.judge
import org.llamaexport.core.measureBench
import org.llamaexport.core.report
import org.llamaexport.core.run
import org.llamaexport.core.sha256
import org.llamaexport.core.write

/** What is being done with the model, and how far it is; [total] 0: not known yet. */
data class RunningReport(val isVerifying: Boolean, val done: Int = 0, val total: Int = 0) {
    fun words(context: Context): String =
        context.getString(if (isVerifying) R.string.verifying else R.string.measuring, done, total)
}

/** What came of verifying or measuring a model. */
class ReportResult(
    val model: String,
    val fileName: String,
    val json: String?,
    val color: Int,
    val verdict: (Context) -> String,
    val detail: (Context) -> String,
)

/** Verifies and measures the loaded model on its thread; all is called on the main thread. */
class Reports(private val host: ModelHost, private val engines: Engines, private val phone: Phone) {
    private val main = Handler(Looper.getMainLooper())
    private val listeners = CopyOnWriteArrayList<() -> Unit>()

    /** Called when something begins to be verified or measured. */
    var onBegin: () -> Unit = {}

    /** What is being done; null: nothing. */
    var running: RunningReport? = null
        private set

    /** What came of it last; null: nothing yet. */
    var result: ReportResult? = null
        private set

    fun addListener(listener: () -> Unit) {
        listeners += listener
    }

    fun removeListener(listener: () -> Unit) {
        listeners -= listener
    }

    /** Compare what this phone computes with the bundle's golden data; false: no model is ready. */
    fun verify(): Boolean {
        val model = host.state.loaded ?: return false
        val begun = host.work("verify", { open, stop ->
            val golden = open.bundle.readGolden() ?: return@work null
            val measured = golden.run(open.cache, stop = stop, onProgress = ::progress)
                ?: throw Interrupted()
            val manifest = checkNotNull(sha256(File(open.bundle.folder, MANIFEST_NAME)) { true })
            val runtime = engines.runtimeOf(open.info.manifest.target)
            val json = golden.report(measured, device(), runtime, manifest)
            golden.judge(measured) to json.write()
        }) { outcome ->
            end(model, outcome.error, outcome.value?.let { verified(model, it) } ?: noGolden(model))
        }
        return begin(begun, isVerifying = true)
    }

    /** Measure how fast the model is, loading included; false: no model is ready. */
    fun measure(isQuick: Boolean): Boolean {
        val model = host.state.loaded ?: return false
        val begun = host.workAlone("measure", { bundle, stop ->
            val plan = BenchPlan.fitting(model.contextTokens, isQuick)
            val open = { engines.openEngine(bundle, model.contextTokens) }
            val measured = measureBench(
                open, plan, PhoneReadings(phone), model.manifest.vocabSize,
                stop = stop, onProgress = ::progress,
            ) ?: throw Interrupted()
            val manifest = model.manifest
            val about = BenchBundle(
                model.name, manifest.modelName, manifest.target, manifest.recipe,
                groupSize = null, sizeBytes = manifest.sizeBytes,
            )
            val cores = Runtime.getRuntime().availableProcessors()
            val device = BenchDevice(phone.name(), cores, phone.totalBytes())
            measured to measured.report(plan, about, device, BenchThreads(null, "runtime")).write()
        }) { outcome ->
            end(model, outcome.error, outcome.value?.let { measured(model, it.first, it.second) })
        }
        return begin(begun, isVerifying = false)
    }

    private fun begin(begun: Boolean, isVerifying: Boolean): Boolean {
        if (!begun) return false
        running = RunningReport(isVerifying)
        result = null
        tell()
        onBegin()
        return true
    }

    private fun progress(done: Int, total: Int) {
        main.post {
            running = running?.copy(done = done, total = total)
            tell()
        }
    }

    private fun end(model: LoadedModel, error: AppError?, found: ReportResult?) {
        running = null
        result = when (error) {
            null -> found
            is Interrupted -> plain(model, { it.getString(R.string.stopped) }, R.color.text)
            else -> plain(model, { error.inWords(it) }, R.color.bad)
        }
        tell()
    }

    private fun noGolden(model: LoadedModel) =
        plain(model, { it.getString(R.string.no_golden) }, R.color.text)

    private fun plain(model: LoadedModel, verdict: (Context) -> String, color: Int) =
        ReportResult(model.name, "", null, color, verdict) { "" }

    private fun verified(model: LoadedModel, found: Pair<GoldenVerdict, String>): ReportResult {
        val (verdict, json) = found
        val isGreen = verdict.isGreen
        return ReportResult(
            model = model.name,
            fileName = "${model.name}-verify.json",
            json = json,
            color = if (isGreen) R.color.good else R.color.bad,
            verdict = { it.getString(if (isGreen) R.string.verified else R.string.not_verified) },
            detail = { context ->
                val figures = context.getString(
                    R.string.verify_figures, verdict.klMean, verdict.limits.klMean, verdict.klWorst,
                    verdict.limits.klWorst, verdict.swapped, verdict.unsound,
                )
                val first = verdict.firstBeyond?.let { context.getString(R.string.verify_first, it) }
                listOfNotNull(first, figures).joinToString("\n")
            },
        )
    }

    private fun measured(model: LoadedModel, found: BenchResult, json: String) = ReportResult(
        model = model.name,
        fileName = "${model.name}-bench.json",
        json = json,
        color = R.color.text,
        verdict = { it.getString(R.string.measured) },
        detail = { context -> context.benchText(found) },
    )

    private fun device(): Map<String, String> = mapOf(
        "model" to "${Build.MANUFACTURER} ${Build.MODEL}",
        "system" to "Android ${Build.VERSION.RELEASE}",
        "abi" to Build.SUPPORTED_ABIS.firstOrNull().orEmpty(),
    )

    private fun tell() = listeners.forEach { it() }
}

/** The user stopped it. */
private class Interrupted : AppError("it was stopped", "")

private class PhoneReadings(private val phone: Phone) : BenchHost {
    override fun clockNanos(): Long = SystemClock.elapsedRealtimeNanos()

    override fun residentBytes(): Long? = phone.appMemoryBytes()

    override fun peakResidentBytes(): Long? = null

    override fun thermal(): String? = phone.thermal()
}

private fun Context.benchText(found: BenchResult): String = buildList {
    add(getString(R.string.measured_load, found.loadS))
    add(getString(R.string.measured_first, found.firstCallTokens, found.firstCallS))
    for (each in found.prefill) add(getString(R.string.measured_prefill, each.tokens, each.tokensPerS.median))
    for (each in found.decode) {
        val speed = each.tokensPerS
        add(getString(R.string.measured_decode, each.context, speed.median, speed.least, speed.most))
    }
    found.residentBytes?.let { add(getString(R.string.measured_memory, sizeText(it))) }
    val before = found.thermalBefore
    val after = found.thermalAfter
    if (before != null && after != null) {
        add(getString(R.string.measured_heat, heatText(before), heatText(after)))
    }
}.joinToString("\n")
