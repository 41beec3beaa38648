import LlamaAppCore
import LlamaKit
import SwiftUI
import UniformTypeIdentifiers

/// The models on this device, and the ways to bring more.
struct ModelsView: View {
    @Environment(AppParts.self) private var parts
    @Environment(\.dismiss) private var dismiss
    @State private var isChoosing = false
    @State private var download: DownloadForm?
    @State private var deleted: ModelEntry?
    @State private var fault: String?

    var body: some View {
        List {
            JobSection()
            if !parts.models.unfinished.isEmpty { unfinished }
            Section {
                ForEach(parts.models.entries ?? []) { entry in
                    ModelRow(entry: entry, load: { load($0) }, delete: { deleted = entry })
                }
            } footer: {
                Text(
                    """
                    A model is a folder that llama-export wrote. Copy it into this app’s folder in \
                    Files or Finder, import it here as a folder or zip, drop it on this list, or \
                    download it.
                    """)
            }
        }
        .dropDestination(for: URL.self) { places, _ in
            guard let place = places.first else { return false }
            return bring(place)
        }
        .navigationTitle("Models")
        .toolbar {
            ToolbarItem(placement: .primaryAction) {
                Button(action: { isChoosing = true }) {
                    Label("Import a folder or zip", systemImage: "folder")
                }
            }
            ToolbarItem(placement: .primaryAction) {
                Button(action: { download = DownloadForm() }) {
                    Label("Download", systemImage: "arrow.down.circle")
                }
            }
        }
        .fileImporter(isPresented: $isChoosing, allowedContentTypes: [.folder, .zip]) { result in
            switch result {
            case .success(let place): _ = bring(place)
            case .failure(let error): fault = error.localizedDescription
            }
        }
        .sheet(item: $download) { form in
            DownloadView(form: form)
        }
        .modifier(MemoryAlert(isHeld: download != nil))
        .modifier(FaultAlert(fault: $fault))
        .confirmationDialog(
            Words.askDelete(deleted?.name ?? ""), isPresented: isDeleting, titleVisibility: .visible
        ) {
            Button("Delete", role: .destructive) { delete() }
            Button("Cancel", role: .cancel) { deleted = nil }
        } message: {
            Text("Its files are deleted from this device. Conversations stay.")
        }
        .task { await parts.models.read() }
        .onChange(of: parts.jobs.ended) { _, _ in
            Task { await parts.models.read() }
        }
        .onChange(of: parts.host.state.isReady) { _, isReady in
            if isReady { dismiss() }
        }
    }

    private var unfinished: some View {
        Section("Unfinished downloads") {
            ForEach(parts.models.unfinished.filter { $0 != parts.jobs.job?.name }, id: \.self) { name in
                VStack(alignment: .leading, spacing: 8) {
                    Text(name)
                    Text("The download did not end. What came is kept.")
                        .font(.footnote)
                        .foregroundStyle(.secondary)
                    HStack(spacing: 16) {
                        Button("Go on") { goOn(name) }
                        Button("Discard", role: .destructive) {
                            Task { await parts.models.discard(name) }
                        }
                    }
                    .buttonStyle(.borderless)
                }
            }
        }
    }

    private var isDeleting: Binding<Bool> {
        Binding(get: { deleted != nil }, set: { if !$0 { deleted = nil } })
    }

    private func bring(_ place: URL) -> Bool {
        let isBegun = parts.jobs.importBundle(place)
        if !isBegun { fault = String(localized: "Another model is being fetched: wait for it, or stop it.") }
        return isBegun
    }

    private func goOn(_ name: String) {
        if parts.jobs.job != nil {
            fault = String(localized: "Another model is being fetched: wait for it, or stop it.")
        } else if !parts.jobs.goOn(name) {
            download = DownloadForm(name: name)
        }
    }

    private func load(_ bundle: ModelBundle) {
        Task {
            if await parts.askToLoad(bundle) { return }
            fault = String(localized: "The model is busy: wait for it, or stop it.")
        }
    }

    private func delete() {
        guard let entry = deleted else { return }
        deleted = nil
        Task {
            do {
                if try await parts.models.delete(entry) { return }
                fault = String(localized: "The model is busy: wait for it, or stop it.")
            } catch {
                fault = Words.fault(error)
            }
        }
    }
}

/// What is being fetched, or why the last one failed.
private struct JobSection: View {
    @Environment(AppParts.self) private var parts

    var body: some View {
        if let job = parts.jobs.job {
            Section {
                VStack(alignment: .leading, spacing: 8) {
                    Text(Words.fetching(job))
                    if let progress = job.progress, progress.sizeBytes > 0 {
                        ProgressView(value: Double(progress.doneBytes), total: Double(progress.sizeBytes))
                    } else {
                        ProgressView()
                    }
                    Button("Stop") { parts.jobs.stopJob() }
                        .buttonStyle(.borderless)
                }
            }
        } else if let error = parts.jobs.error {
            Section {
                Text(Words.fault(error))
                    .textSelection(.enabled)
                Button("OK") { parts.jobs.dismiss() }
                ShareLink(item: parts.report(), subject: Text("Log of Llama")) {
                    Text("Share log")
                }
            }
        }
    }
}
