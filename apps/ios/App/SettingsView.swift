import LlamaAppCore
import LlamaKit
import SwiftUI

/// The system message, how tokens are drawn and how long texts may be, for this conversation and new ones.
struct SettingsView: View {
    @Environment(AppParts.self) private var parts
    @Environment(\.dismiss) private var dismiss
    @State private var form: SettingsForm?
    @State private var fault: String?
    @State private var log = ""

    var body: some View {
        Form {
            if let fault {
                Text(fault)
                    .foregroundStyle(Color.red)
            }
            Section {
                TextField("How the model is to behave", text: system, axis: .vertical)
                    .lineLimit(1...12)
                    .disabled(isWithoutSystem)
            } header: {
                Text("System prompt")
            } footer: {
                if let model = parts.host.state.loaded, !model.takesSystem {
                    Text(Words.noSystem(model.name))
                }
            }
            Section {
                number(.temperature)
                number(.topP)
                number(.topK)
                number(.minP)
                number(.repetitionPenalty)
                number(.seed)
                Button("As the model asks") {
                    form?.show(parts.host.state.loaded?.sampling ?? .defaults)
                }
            } header: {
                Text("How words are chosen")
            } footer: {
                Text("For this conversation and new ones. Without a seed, each answer takes another one.")
            }
            Section {
                number(.maxTokens)
                number(.contextTokens)
            } header: {
                Text("Lengths")
            } footer: {
                Text("A longer context takes more memory. It counts from the next time a model is loaded.")
            }
            Section {
                ShareLink(item: log, subject: Text("Log of Llama")) {
                    Text("Share log")
                }
            } footer: {
                Text("It holds what went wrong, and no word of a conversation.")
            }
        }
        .formStyle(.grouped)
        .navigationTitle("Settings")
        .toolbar {
            ToolbarItem(placement: .confirmationAction) {
                Button("Save") { save() }
            }
        }
        .onAppear(perform: begin)
    }

    private func number(_ field: SettingsForm.Field) -> some View {
        LabeledContent(Words.field(field)) {
            TextField(Words.field(field), text: typed(field))
                .labelsHidden()
                .multilineTextAlignment(.trailing)
                #if os(iOS)
                    .keyboardType(field.isWhole ? .numberPad : .decimalPad)
                #endif
        }
    }

    private var isWithoutSystem: Bool { parts.host.state.loaded?.takesSystem == false }

    private var system: Binding<String> {
        Binding(get: { form?.system ?? "" }, set: { form?.system = $0 })
    }

    private func typed(_ field: SettingsForm.Field) -> Binding<String> {
        Binding(get: { form?.typed[field] ?? "" }, set: { form?.typed[field] = $0 })
    }

    private func begin() {
        log = parts.report()
        if form != nil { return }
        let conversation = parts.session.conversation
        form = SettingsForm(
            system: conversation.system, sampling: conversation.sampling,
            maxTokens: parts.settings.maxTokens, contextTokens: parts.settings.contextTokens)
    }

    private func save() {
        do {
            try form?.save(parts.settings, parts.session, model: parts.host.state.loaded)
            dismiss()
        } catch let error as SettingsFault {
            fault = Words.wrongNumber(error)
        } catch {
            fault = Words.fault(error)
        }
    }
}
