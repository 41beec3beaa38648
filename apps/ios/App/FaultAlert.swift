import SwiftUI

/// Shows a sentence that the user closes.
struct FaultAlert: ViewModifier {
    @Binding var fault: String?

    func body(content: Content) -> some View {
        content.alert(
            "That did not work", isPresented: isShown, presenting: fault,
            actions: { _ in Button("OK", role: .cancel) { fault = nil } },
            message: { text in Text(text) })
    }

    private var isShown: Binding<Bool> {
        Binding(get: { fault != nil }, set: { if !$0 { fault = nil } })
    }
}

/// Put a text on the clipboard.
func copyText(_ text: String) {
    #if os(iOS)
        UIPasteboard.general.string = text
    #else
        NSPasteboard.general.clearContents()
        NSPasteboard.general.setString(text, forType: .string)
    #endif
}
