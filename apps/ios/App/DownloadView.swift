import LlamaAppCore
import LlamaKit
import SwiftUI

/// What the download screen begins with.
struct DownloadForm: Identifiable {
    /// Name of an unfinished download whose address nobody remembers; nil: a new one.
    var name: String?

    var id: String { name ?? "" }
}

/// Asks where a model is to be fetched from.
struct DownloadView: View {
    let form: DownloadForm

    @Environment(AppParts.self) private var parts
    @Environment(\.dismiss) private var dismiss
    @State private var place = DownloadPlace()
    @State private var fault: String?

    var body: some View {
        NavigationStack {
            Form {
                if let fault {
                    Text(fault)
                        .foregroundStyle(Color.red)
                }
                Section {
                    TextField("Address or owner/name", text: $place.place)
                        .modifier(AddressField())
                    TextField("Folder in it, such as coreml (may be empty)", text: $place.folder)
                        .modifier(AddressField())
                } footer: {
                    Text(
                        """
                        The address of a folder on a server, or a repository of the Hugging Face Hub as \
                        owner/name.
                        """)
                }
                Section {
                    SecureField("Access token, for private or gated models", text: $place.token)
                } footer: {
                    Text("It is kept in the keychain of this device, for that server alone.")
                }
                Section {
                    TextField("Name on this device (may be empty)", text: $place.name)
                        .modifier(AddressField())
                        .disabled(form.name != nil)
                }
            }
            .navigationTitle("Download")
            .toolbar {
                ToolbarItem(placement: .cancellationAction) {
                    Button("Cancel") { dismiss() }
                }
                ToolbarItem(placement: .confirmationAction) {
                    Button("Download") { begin() }
                        .disabled(place.place.isEmpty)
                }
            }
        }
        .onAppear { place.name = form.name ?? "" }
        #if os(macOS)
            .frame(minWidth: 460, minHeight: 420)
        #endif
    }

    private func begin() {
        do {
            if try parts.jobs.download(place) {
                dismiss()
            } else {
                fault = String(localized: "Another model is being fetched: wait for it, or stop it.")
            }
        } catch {
            // What is typed stays where it is wrong.
            fault = Words.fault(error)
        }
    }
}

/// A field for what is no prose.
struct AddressField: ViewModifier {
    func body(content: Content) -> some View {
        content
            .autocorrectionDisabled()
            #if os(iOS)
                .textInputAutocapitalization(.never)
                .keyboardType(.URL)
            #endif
    }
}
