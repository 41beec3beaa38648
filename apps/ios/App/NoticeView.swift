import LlamaAppCore
import LlamaKit
import SwiftUI

/// The card above a conversation: what went wrong, or what is missing, and what to do.
struct NoticeView: View {
    let show: (Screen) -> Void

    @Environment(AppParts.self) private var parts

    var body: some View {
        if parts.foreground.isPaused {
            card(String(localized: "The answer waits, because the app left the screen.")) {
                Button("Go on") { parts.foreground.goOn() }
                Button("Stop") { parts.session.stop() }
            }
        } else if let problem = parts.session.problem {
            card(Words.fault(problem)) {
                Button("OK") { parts.session.dismiss() }
                shareLog
            }
        } else if let name = parts.endedLoading {
            card(Words.endedLoading(name)) {
                Button("OK") { parts.dismissEnd() }
                Button("Models") { show(.models) }
                shareLog
            }
        } else {
            model
        }
    }

    @ViewBuilder private var model: some View {
        switch parts.host.state {
        case .failed(_, let error):
            card(Words.fault(error)) {
                Button("Models") { show(.models) }
                Button("Settings") { show(.settings) }
                shareLog
            }
        case .loading(let name, let step):
            card(Words.loading(name, step)) {
                Button("Stop") { parts.host.stop() }
            }
        case .idle(let freed):
            if parts.hasBegun { idle(freed) }
        case .ready, .busy:
            EmptyView()
        }
    }

    private func idle(_ freed: String?) -> some View {
        card(Words.idle(last: parts.lastModel, freed: freed)) {
            if !parts.lastModel.isEmpty {
                Button("Load") { Task { await parts.loadLast() } }
            }
            Button("Choose a model") { show(.models) }
        }
    }

    private var shareLog: some View {
        ShareLink(item: parts.report(), subject: Text("Log of Llama")) {
            Text("Share log")
        }
    }

    private func card(_ text: String, @ViewBuilder buttons: () -> some View) -> some View {
        VStack(alignment: .leading, spacing: 10) {
            Text(text)
                .font(.callout)
                .textSelection(.enabled)
            HStack(spacing: 16) {
                buttons()
            }
            .buttonStyle(.borderless)
        }
        .padding()
        .frame(maxWidth: .infinity, alignment: .leading)
        .background(.bar)
    }
}
