import LlamaAppCore
import LlamaKit
import SwiftUI

/// The conversations that are kept.
struct ConversationsView: View {
    @Environment(AppParts.self) private var parts
    @Environment(\.dismiss) private var dismiss
    @State private var renamed: Conversation?
    @State private var deleted: KeptConversation?
    @State private var title = ""
    @State private var fault: String?

    var body: some View {
        List {
            ForEach(parts.conversations.entries ?? []) { entry in
                row(entry)
            }
        }
        .overlay {
            if parts.conversations.entries?.isEmpty == true {
                ContentUnavailableView(
                    "No conversations", systemImage: "bubble.left.and.bubble.right",
                    description: Text("What you talk about is kept here, on this device alone."))
            }
        }
        .navigationTitle("Conversations")
        .toolbar {
            ToolbarItem(placement: .primaryAction) {
                Button(action: { begin() }) {
                    Label("New conversation", systemImage: "square.and.pencil")
                }
            }
        }
        .alert("Rename", isPresented: isRenaming) {
            TextField("Name", text: $title)
            Button("Rename") { rename() }
            Button("Cancel", role: .cancel) { renamed = nil }
        }
        .confirmationDialog(
            Words.askDelete(titleOf(deleted)), isPresented: isDeleting, titleVisibility: .visible
        ) {
            Button("Delete", role: .destructive) { delete() }
            Button("Cancel", role: .cancel) { deleted = nil }
        }
        .modifier(FaultAlert(fault: $fault))
        .task { await parts.conversations.read() }
    }

    @ViewBuilder private func row(_ entry: KeptConversation) -> some View {
        switch entry {
        case .sound(let conversation):
            VStack(alignment: .leading, spacing: 8) {
                Button(action: { open(conversation.id) }) {
                    VStack(alignment: .leading, spacing: 4) {
                        Text(titleOf(entry))
                            .font(.headline)
                            .foregroundStyle(Color.primary)
                        Text(Words.summary(conversation))
                            .font(.footnote)
                            .foregroundStyle(Color.secondary)
                    }
                }
                HStack(spacing: 16) {
                    Button("Rename") {
                        title = conversation.title
                        renamed = conversation
                    }
                    ShareLink(item: conversation.toText(), subject: Text(titleOf(entry))) {
                        Text("Export")
                    }
                    Button("Delete", role: .destructive) { deleted = entry }
                }
                .font(.callout)
            }
            .buttonStyle(.borderless)
        case .damaged(_, let reason):
            VStack(alignment: .leading, spacing: 8) {
                Text(reason)
                    .foregroundStyle(Color.red)
                Button("Delete", role: .destructive) { deleted = entry }
                    .buttonStyle(.borderless)
            }
        }
    }

    private func titleOf(_ entry: KeptConversation?) -> String {
        switch entry {
        case .sound(let conversation):
            return conversation.title.isEmpty ? String(localized: "Draft") : conversation.title
        case .damaged(let id, _): return id
        case nil: return ""
        }
    }

    private var isRenaming: Binding<Bool> {
        Binding(get: { renamed != nil }, set: { if !$0 { renamed = nil } })
    }

    private var isDeleting: Binding<Bool> {
        Binding(get: { deleted != nil }, set: { if !$0 { deleted = nil } })
    }

    private func begin() {
        if parts.session.begin() { dismiss() } else { sayStopFirst() }
    }

    private func open(_ id: String) {
        Task {
            if parts.session.pending != nil { return sayStopFirst() }
            await parts.session.open(id)
            dismiss()
        }
    }

    private func rename() {
        guard let conversation = renamed else { return }
        renamed = nil
        let typed = title
        Task { await parts.conversations.rename(conversation.id, to: typed) }
    }

    private func delete() {
        guard let entry = deleted else { return }
        deleted = nil
        Task {
            if await !parts.conversations.delete(entry.id) { sayStopFirst() }
        }
    }

    private func sayStopFirst() {
        fault = String(localized: "An answer is being written: stop it first.")
    }
}
