import Foundation
import LlamaKit
import Observation

/// The conversations that are kept, as a list shows them.
@MainActor
@Observable
public final class ConversationList {
    /// The newest first, the damaged ones last; nil: not read yet.
    public private(set) var entries: [KeptConversation]?

    @ObservationIgnored private let store: ConversationStore
    @ObservationIgnored private let session: Session
    @ObservationIgnored private let files: FileWork

    init(store: ConversationStore, session: Session, files: FileWork) {
        self.store = store
        self.session = session
        self.files = files
    }

    /// Look at the storage again, with what is open in it.
    public func read() async {
        session.save()
        let store = store
        entries = (try? await files.run { store.list() }) ?? entries
    }

    /// Give a conversation another title; a blank one changes nothing.
    public func rename(_ id: String, to typed: String) async {
        let title = typed.trimmingCharacters(in: .whitespacesAndNewlines)
        if title.isEmpty { return }
        session.renamed(id, title)
        let store = store
        await change { try store.rename(id, to: title) }
    }

    /// Delete a conversation, sound or damaged; false: an answer is being written in it.
    @discardableResult
    public func delete(_ id: String) async -> Bool {
        if session.pending != nil && session.conversation.id == id { return false }
        session.deleted(id)
        let store = store
        await change { try store.delete(id) }
        return true
    }

    private func change(_ work: @escaping @Sendable () throws -> Void) async {
        do {
            try await files.run(work)
        } catch {
            session.fail(inWords(error))
        }
        await read()
    }
}
