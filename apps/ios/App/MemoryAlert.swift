import LlamaAppCore
import SwiftUI

/// Asks what to do about a model whose memory is not there.
struct MemoryAlert: ViewModifier {
    /// Whether another screen is above this one, and shows the question instead.
    let isHeld: Bool

    @Environment(AppParts.self) private var parts

    func body(content: Content) -> some View {
        content.alert(
            "Not enough memory", isPresented: isAsked, presenting: parts.question,
            actions: { question in
                if let smaller = question.memory.smaller {
                    Button(Words.useTokens(smaller.tokens)) { parts.answer(contextTokens: smaller.tokens) }
                }
                Button("Try anyway", role: .destructive) {
                    parts.answer(contextTokens: question.memory.contextTokens)
                }
                Button("Cancel", role: .cancel) { parts.answer(contextTokens: nil) }
            },
            message: { question in
                Text(Words.memoryShort(question.bundle, question.memory))
            })
    }

    private var isAsked: Binding<Bool> {
        Binding(get: { parts.question != nil && !isHeld }, set: { _ in })
    }
}
