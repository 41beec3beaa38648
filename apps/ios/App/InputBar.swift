import LlamaAppCore
import SwiftUI

/// Where the user types, and sends or stops.
struct InputBar: View {
    let show: (Screen) -> Void

    @Environment(AppParts.self) private var parts

    var body: some View {
        @Bindable var session = parts.session
        VStack(alignment: .leading, spacing: 6) {
            Button(action: { show(.models) }) {
                Text(Words.status(parts.host.state))
                    .font(.caption)
                    .multilineTextAlignment(.leading)
            }
            .buttonStyle(.borderless)
            .accessibilityHint(Text("Shows the models"))
            HStack(alignment: .bottom, spacing: 10) {
                TextField("Message", text: $session.draft, axis: .vertical)
                    .lineLimit(1...8)
                    .textFieldStyle(.roundedBorder)
                if session.pending != nil {
                    Button(action: { session.stop() }) {
                        Label("Stop", systemImage: "stop.circle.fill")
                    }
                    .keyboardShortcut(.cancelAction)
                } else {
                    Button(action: { session.send() }) {
                        Label("Send", systemImage: "arrow.up.circle.fill")
                    }
                    .keyboardShortcut(.return, modifiers: .command)
                    .disabled(!session.canSend)
                }
            }
            .labelStyle(.iconOnly)
            .imageScale(.large)
        }
        .padding()
        .background(.bar)
    }
}
