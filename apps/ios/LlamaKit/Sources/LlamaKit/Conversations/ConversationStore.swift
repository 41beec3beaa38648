import Foundation

private let ending = ".json"
private let idBytes = 8
private let shownCharacters = 40
private let freeSpace = "Delete models or files, and try again."

/// A file of the store.
public enum KeptConversation: Sendable, Equatable, Identifiable {
    /// A conversation that can be opened.
    case sound(Conversation)

    /// A file that cannot be read; it is left as it is.
    case damaged(id: String, reason: String)

    /// Name of its file, without the ending.
    public var id: String {
        switch self {
        case .sound(let conversation): conversation.id
        case .damaged(let id, _): id
        }
    }
}

/// Conversations, a file each, written so that a kill leaves the old one or the new one.
public struct ConversationStore: Sendable {
    private let folder: URL

    /// - Parameter folder: where they are; it need not exist
    public init(folder: URL) { self.folder = folder }

    /// Return an id that no conversation has.
    public func newId() -> String {
        hex((0..<idBytes).map { _ in UInt8.random(in: .min ... .max) })
    }

    /// Keep a conversation, in place of what was kept of it.
    ///
    /// - Throws: ``BadInput`` if the storage cannot take it, what was kept being still there
    public func save(_ conversation: Conversation) throws {
        let file = try file(conversation.id)
        do {
            try makeFolder(folder)
            try writeWhole(conversation.write(), to: file)
        } catch let error as FileFault {
            throw BadInput("the conversation cannot be kept: \(error)", hint: freeSpace, kind: .storage)
        }
    }

    /// Read a conversation.
    ///
    /// - Throws: ``BadInput`` if it is not there, or damaged
    public func load(_ id: String) throws -> Conversation {
        let file = try file(id)
        let content: [UInt8]
        do {
            guard let read = try FileReader(file).readAll(most: mostJsonBytes) else {
                throw BadInput("\(id + ending) is larger than \(mostJsonBytes) bytes", hint: "")
            }
            content = read
        } catch let error as FileFault {
            throw BadInput("the conversation \(id) cannot be read: \(error)", hint: "Choose another one.")
        }
        let found = try Conversation.parse(content, where: id + ending)
        if !sameBytes(found.id, id) {
            throw BadInput("\(id + ending) is the conversation \(found.id.prefix(shownCharacters))", hint: "")
        }
        return found
    }

    /// Return all of them, the newest first and the damaged ones last.
    public func list() -> [KeptConversation] {
        var sound = [Conversation]()
        var damaged = [KeptConversation]()
        for id in namesIn(folder).compactMap({ withoutEnding($0, ending) }) {
            do {
                sound.append(try load(id))
            } catch let error as any AppError {
                damaged.append(.damaged(id: id, reason: error.message))
            } catch {
                damaged.append(.damaged(id: id, reason: "\(error)"))
            }
        }
        sound.sort { ($1.changedMs, $0.id) < ($0.changedMs, $1.id) }
        return sound.map { .sound($0) } + damaged
    }

    /// Give a conversation another title.
    ///
    /// - Throws: as ``load(_:)`` and ``save(_:)``
    public func rename(_ id: String, to title: String) throws {
        var conversation = try load(id)
        conversation.title = title
        try save(conversation)
    }

    /// Delete a conversation, sound or damaged.
    ///
    /// - Throws: ``BadInput`` if the id is none
    public func delete(_ id: String) throws {
        let file = try file(id)
        deleteTree(file)
        // A kill in the middle of a save leaves its words here.
        deleteTree(URL(fileURLWithPath: file.path + partEnding, isDirectory: false))
    }

    private func file(_ id: String) throws -> URL {
        try requireFolderName(id)
        return folder.at(id + ending)
    }
}
