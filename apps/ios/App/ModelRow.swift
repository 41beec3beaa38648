import LlamaAppCore
import LlamaKit
import SwiftUI

/// A model with what can be done with it.
struct ModelRow: View {
    let entry: ModelEntry
    let load: (ModelBundle) -> Void
    let delete: () -> Void

    @Environment(AppParts.self) private var parts

    var body: some View {
        VStack(alignment: .leading, spacing: 8) {
            Text(entry.name)
                .font(.headline)
            Text(detail)
                .font(.footnote)
                .foregroundStyle(isDamaged ? Color.red : Color.secondary)
            HStack(spacing: 16) {
                if case .sound(let bundle) = entry {
                    if parts.host.state.loaded?.name == entry.name {
                        Button("Unload") { Task { await parts.host.unload() } }
                            .disabled(parts.host.state.isWorking)
                    } else {
                        Button("Load") { load(bundle) }
                            .disabled(parts.host.state.isWorking)
                    }
                }
                Button("Delete", role: .destructive) { delete() }
            }
            .buttonStyle(.borderless)
        }
    }

    private var isDamaged: Bool {
        if case .damaged = entry { return true }
        return false
    }

    private var detail: String {
        switch entry {
        case .damaged(_, let error): return Words.fault(error)
        case .sound(let bundle): return Words.format(bundle.manifest, status: status)
        }
    }

    private var status: String? {
        if parts.host.state.loaded?.name == entry.name { return String(localized: "loaded") }
        if case .loading(let name, _) = parts.host.state, name == entry.name {
            return String(localized: "being loaded")
        }
        return nil
    }
}
