import LlamaAppCore
import SwiftUI

/// The chat, and the sheets over it.
struct RootView: View {
    @Environment(AppParts.self) private var parts
    @Environment(\.scenePhase) private var scenePhase
    @State private var screen: Screen?

    var body: some View {
        NavigationStack {
            ChatView(show: { screen = $0 })
        }
        .sheet(item: $screen) { screen in
            SheetView(screen: screen)
        }
        .modifier(MemoryAlert(isHeld: screen != nil))
        .modifier(MemoryWarnings())
        .task { await parts.begin() }
        .onChange(of: scenePhase) { _, phase in
            // On a Mac nothing forbids to compute behind other windows.
            #if os(iOS)
                parts.change(to: AppPhase(phase))
            #else
                if phase == .background { parts.session.save() }
            #endif
        }
    }
}

/// A screen that lies over the chat.
enum Screen: String, Identifiable {
    case models
    case conversations
    case settings
    case reports

    var id: String { rawValue }
}

/// One of the screens, with the way back.
private struct SheetView: View {
    let screen: Screen

    @Environment(\.dismiss) private var dismiss

    var body: some View {
        NavigationStack {
            content
                .toolbar {
                    ToolbarItem(placement: .cancellationAction) {
                        Button("Close") { dismiss() }
                    }
                }
        }
        #if os(macOS)
            .frame(minWidth: 480, minHeight: 560)
        #endif
    }

    @ViewBuilder private var content: some View {
        switch screen {
        case .models: ModelsView()
        case .conversations: ConversationsView()
        case .settings: SettingsView()
        case .reports: ReportView()
        }
    }
}

extension AppPhase {
    init(_ phase: ScenePhase) {
        switch phase {
        case .active: self = .active
        case .background: self = .background
        default: self = .inactive
        }
    }
}

/// Gives an idle model up when the system needs memory.
private struct MemoryWarnings: ViewModifier {
    @Environment(AppParts.self) private var parts

    func body(content: Content) -> some View {
        #if os(iOS)
            content.onReceive(
                NotificationCenter.default.publisher(
                    for: UIApplication.didReceiveMemoryWarningNotification)
            ) { _ in
                Task { await parts.memoryWarning() }
            }
        #else
            content
        #endif
    }
}
