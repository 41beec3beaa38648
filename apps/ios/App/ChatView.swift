import Accessibility
import LlamaAppCore
import LlamaKit
import SwiftUI

/// The conversation that is open.
struct ChatView: View {
    let show: (Screen) -> Void

    @Environment(AppParts.self) private var parts
    @State private var edited: EditedMessage?
    @State private var speaker = SentenceCutter()

    var body: some View {
        content
            .safeAreaInset(edge: .top) { NoticeView(show: show) }
            .safeAreaInset(edge: .bottom) { InputBar(show: show) }
            .navigationTitle(title)
            .toolbar {
                ToolbarItem(placement: .primaryAction) { NewButton() }
                ToolbarItem(placement: .primaryAction) { ScreensMenu(show: show) }
            }
            .sheet(item: $edited) { message in
                EditView(message: message)
            }
            .modifier(FullContextAlert())
            .onChange(of: parts.session.pending?.answer) { old, answer in speak(old, answer) }
            #if os(iOS)
                .navigationBarTitleDisplayMode(.inline)
            #endif
    }

    @ViewBuilder private var content: some View {
        let rows = ChatRow.rows(of: parts.session)
        if rows.isEmpty {
            ContentUnavailableView(
                "Ask something", systemImage: "bubble.left.and.bubble.right",
                description: Text(emptyText))
        } else {
            ScrollView {
                LazyVStack(alignment: .leading, spacing: 16) {
                    ForEach(rows) { row in
                        MessageRow(
                            row: row, edit: { edited = EditedMessage(index: row.index, text: row.text) })
                    }
                }
                .padding()
                .frame(maxWidth: 760)
                .frame(maxWidth: .infinity)
            }
            .defaultScrollAnchor(.bottom)
            .scrollDismissesKeyboard(.interactively)
        }
    }

    private var title: String {
        let title = parts.session.conversation.title
        return title.isEmpty ? String(localized: "New conversation") : title
    }

    private var emptyText: String {
        guard let model = parts.host.state.loaded, let reason = model.noChatReason else {
            return String(localized: "The model runs on this device. Nothing that you write leaves it.")
        }
        return Words.continues(model.name, reason)
    }

    /// Speak whole sentences, not tokens.
    private func speak(_ old: String?, _ answer: String?) {
        var sentence: String?
        if let answer {
            if old == nil { announce(String(localized: "The model is answering")) }
            sentence = speaker.update(answer)
        } else {
            sentence = speaker.end(parts.session.conversation.turns.last?.message.text ?? "")
        }
        if let sentence { announce(sentence) }
    }

    private func announce(_ sentence: String) {
        AccessibilityNotification.Announcement(sentence).post()
    }
}

/// Begins another conversation.
private struct NewButton: View {
    @Environment(AppParts.self) private var parts

    var body: some View {
        Button(action: { parts.session.begin() }) {
            Label("New conversation", systemImage: "square.and.pencil")
        }
        .disabled(parts.session.pending != nil)
    }
}

/// The screens that the chat leads to.
private struct ScreensMenu: View {
    let show: (Screen) -> Void

    var body: some View {
        Menu {
            Button(action: { show(.conversations) }) {
                Label("Conversations", systemImage: "list.bullet")
            }
            Button(action: { show(.models) }) {
                Label("Models", systemImage: "cpu")
            }
            Button(action: { show(.settings) }) {
                Label("Settings", systemImage: "slider.horizontal.3")
            }
            Button(action: { show(.reports) }) {
                Label("Verify and measure", systemImage: "checkmark.seal")
            }
        } label: {
            Label("More", systemImage: "ellipsis.circle")
        }
    }
}

/// Asks what to do about a question that does not fit.
private struct FullContextAlert: ViewModifier {
    @Environment(AppParts.self) private var parts

    func body(content: Content) -> some View {
        content.alert(
            "The context is full", isPresented: isFull, presenting: parts.session.full,
            actions: { full in
                if full.overflow.keptTokens != nil {
                    Button("Drop the oldest") { parts.session.dropOldest() }
                }
                if full.index > 0 {
                    Button("Begin anew") { parts.session.beginAnew() }
                }
                Button("Shorten", role: .cancel) { parts.session.shorten() }
            },
            message: { full in Text(Words.full(full.overflow)) })
    }

    private var isFull: Binding<Bool> {
        Binding(get: { parts.session.full != nil }, set: { _ in })
    }
}
