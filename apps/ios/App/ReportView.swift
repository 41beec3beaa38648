import LlamaAppCore
import SwiftUI

/// Verifies the model on this device and measures it; both reports can be shared.
struct ReportView: View {
    @Environment(AppParts.self) private var parts

    var body: some View {
        List {
            Section {
                if let running = parts.reports.running {
                    progress(running)
                } else {
                    buttons
                }
            } footer: {
                Text(intro)
            }
            if let report = parts.reports.report {
                result(report)
            }
        }
        .navigationTitle("Verify and measure")
    }

    private var buttons: some View {
        Group {
            Button("Verify on this device") { Task { await parts.reports.verify() } }
            Button("Benchmark") { Task { await parts.reports.measure(isQuick: false) } }
            Button("Quick benchmark") { Task { await parts.reports.measure(isQuick: true) } }
        }
        .disabled(!parts.host.state.isReady)
    }

    private var intro: String {
        if parts.host.state.loaded == nil {
            return String(localized: "Load a model first: there is nothing to verify or measure.")
        }
        return String(
            localized:
                """
                Verify: this device computes what the exporter’s machine computed, and compares. \
                Benchmark: how fast it is.
                """
        )
    }

    private func progress(_ running: RunningReport) -> some View {
        VStack(alignment: .leading, spacing: 8) {
            Text(Words.running(running))
            if running.total > 0 {
                ProgressView(value: Double(running.done), total: Double(running.total))
            } else {
                ProgressView()
            }
            HStack(spacing: 16) {
                if parts.foreground.isPaused {
                    Button("Go on") { parts.foreground.goOn() }
                }
                Button("Stop") { parts.host.stop() }
            }
            .buttonStyle(.borderless)
        }
    }

    private func result(_ report: Report) -> some View {
        Section(report.model) {
            Text(Words.verdict(report.result))
                .font(.headline)
                .foregroundStyle(color(report.result))
            let detail = Words.detail(report.result)
            if !detail.isEmpty {
                Text(detail)
                    .font(.callout)
                    .textSelection(.enabled)
            }
            if let file = report.file {
                ShareLink(item: file) {
                    Label("Share the report", systemImage: "square.and.arrow.up")
                }
            }
        }
    }

    private func color(_ result: ReportResult) -> Color {
        switch result {
        case .verified(let verdict): return verdict.isGreen ? Color.green : Color.red
        case .failed: return Color.red
        case .measured, .noGolden, .stopped: return Color.primary
        }
    }
}
