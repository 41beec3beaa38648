import LlamaAppCore
import SwiftUI

/// A message with what can be done with it.
struct MessageRow: View {
    let row: ChatRow
    let edit: () -> Void

    @Environment(AppParts.self) private var parts

    var body: some View {
        VStack(alignment: row.isUser ? .trailing : .leading, spacing: 6) {
            if !row.text.isEmpty {
                bubble
            }
            if !row.under.isEmpty {
                Text(row.under)
                    .font(.footnote)
                    .foregroundStyle(.secondary)
            }
            if !row.isPending {
                actions
            }
        }
        .frame(maxWidth: .infinity, alignment: row.isUser ? .trailing : .leading)
    }

    @ViewBuilder private var bubble: some View {
        if row.isUser {
            Text(row.text)
                .textSelection(.enabled)
                .padding(.horizontal, 14)
                .padding(.vertical, 10)
                .background(Color.accentColor.opacity(0.18), in: RoundedRectangle(cornerRadius: 16))
                .accessibilityLabel(Words.said(row.text))
        } else {
            Text(row.text)
                .textSelection(.enabled)
                .accessibilityLabel(Words.answered(row.text))
        }
    }

    private var actions: some View {
        HStack(spacing: 20) {
            Button(action: { copyText(row.text) }) {
                Label("Copy", systemImage: "doc.on.doc")
            }
            if row.isUser {
                Button(action: { edit() }) {
                    Label("Edit message", systemImage: "pencil")
                }
                .disabled(!parts.host.state.isReady)
            }
            if row.isLast && !row.isUser {
                Button(action: { parts.session.regenerate() }) {
                    Label("Answer again", systemImage: "arrow.clockwise")
                }
                .disabled(!parts.host.state.isReady)
            }
        }
        .labelStyle(.iconOnly)
        .buttonStyle(.borderless)
        .font(.callout)
        .foregroundStyle(.secondary)
    }
}

/// A message that the user is about to change.
struct EditedMessage: Identifiable {
    let index: Int
    let text: String

    var id: Int { index }
}

/// Lets the user change a message and send it again.
struct EditView: View {
    let message: EditedMessage

    @Environment(AppParts.self) private var parts
    @Environment(\.dismiss) private var dismiss
    @State private var text = ""

    var body: some View {
        NavigationStack {
            Form {
                Section {
                    TextField("Message", text: $text, axis: .vertical)
                } footer: {
                    Text("What was said after it is forgotten.")
                }
            }
            .navigationTitle("Edit message")
            .toolbar {
                ToolbarItem(placement: .cancellationAction) {
                    Button("Cancel") { dismiss() }
                }
                ToolbarItem(placement: .confirmationAction) {
                    Button("Send again") {
                        if parts.session.edit(message.index, text) { dismiss() }
                    }
                    .disabled(!parts.host.state.isReady || text.isEmpty)
                }
            }
        }
        .onAppear { text = message.text }
        #if os(macOS)
            .frame(minWidth: 420, minHeight: 240)
        #endif
    }
}
