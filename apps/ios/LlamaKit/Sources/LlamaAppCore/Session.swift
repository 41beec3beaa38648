import Foundation
import LlamaKit
import Observation

private let saveEverySeconds = 2.0
private let titleCharacters = 48

/// The conversation that is open: what was said, what is being said, and what went wrong.
///
/// It outlives the screens. What must survive the process is saved as it changes.
@MainActor
@Observable
public final class Session {
    /// The conversation as it is, without what is pending.
    public private(set) var conversation: Conversation

    /// The answer that is being written; nil: none.
    public private(set) var pending: Pending?

    /// What went wrong last; nil: nothing, or it was read.
    public private(set) var problem: (any AppError)?

    /// The question that does not fit; nil: none.
    public private(set) var full: FullContext?

    /// What is typed and not sent.
    public var draft: String {
        get { conversation.draft }
        set { if newValue != conversation.draft { conversation.draft = newValue } }
    }

    @ObservationIgnored private let store: ConversationStore
    @ObservationIgnored private let settings: AppSettings
    @ObservationIgnored private let host: ModelHost
    @ObservationIgnored private let device: any Device
    @ObservationIgnored private let files: FileWork
    @ObservationIgnored private var savedAt = Date.distantPast

    public init(
        store: ConversationStore, settings: AppSettings, host: ModelHost, device: any Device, files: FileWork
    ) {
        self.store = store
        self.settings = settings
        self.host = host
        self.device = device
        self.files = files
        conversation = Self.fresh(store, settings)
    }

    // MARK: Asking

    /// Whether a message can be sent now.
    public var canSend: Bool {
        pending == nil && host.state.isReady && !isBlank(conversation.draft)
    }

    /// Send what is typed; false: it is blank, or something is being written, or no model is ready.
    @discardableResult
    public func send() -> Bool { ask(conversation.turns.count, conversation.draft) }

    /// Answer the last question anew.
    @discardableResult
    public func regenerate() -> Bool {
        let index = conversation.turns.count - 2
        return index >= 0 && ask(index, conversation.turns[index].message.text)
    }

    /// Replace a message of the user and answer it; what follows is forgotten when the answer ends.
    @discardableResult
    public func edit(_ index: Int, _ text: String) -> Bool {
        conversation.turns.indices.contains(index) && ask(index, text)
    }

    /// End the answer as soon as it can be done; what is written stays.
    public func stop() { host.stop() }

    // MARK: The conversation

    /// Change the system message and how tokens are drawn.
    public func configure(system: String, sampling: Sampling) {
        conversation.system = system
        conversation.sampling = sampling
        save()
    }

    /// Begin another conversation; false: an answer is being written.
    @discardableResult
    public func begin() -> Bool {
        if pending != nil { return false }
        save()
        show(Self.fresh(store, settings))
        return true
    }

    /// Open a conversation that is kept, by its id; false: an answer is being written.
    @discardableResult
    public func open(_ id: String) async -> Bool {
        if pending != nil { return false }
        save()
        let store = store
        do {
            let found = try await files.run { try store.load(id) }
            // What was asked meanwhile goes on where it was asked.
            if pending != nil { return false }
            show(mended(found))
            return true
        } catch {
            fail(inWords(error))
            return false
        }
    }

    /// Hear that a conversation was renamed.
    func renamed(_ id: String, _ title: String) {
        if id == conversation.id { conversation.title = title }
    }

    /// Hear that a conversation is deleted.
    func deleted(_ id: String) {
        if id == conversation.id { show(Self.fresh(store, settings)) }
    }

    /// Keep it on the storage.
    public func save() {
        var kept = conversation
        kept.turns = keptTurns()
        kept.changedMs = Int64(Date().timeIntervalSince1970 * 1000)
        if kept.turns.isEmpty && isBlank(kept.draft) { return }
        savedAt = Date()
        settings.conversation = kept.id
        let store = store
        let whole = kept
        files.begin(
            { try store.save(whole) },
            onEnd: { [weak self] result in
                if let fault = result.fault { self?.fail(fault) }
            })
    }

    // MARK: What went wrong

    /// Show what went wrong elsewhere.
    public func fail(_ error: any AppError) { problem = error }

    /// Hear that the problem was read.
    public func dismiss() { problem = nil }

    // MARK: A full context

    /// Drop the turns that the context has no room for, and ask what did not fit.
    public func dropOldest() {
        guard let question = full else { return }
        let old = conversation
        let dropped = min(question.overflow.droppedTurns, question.index)
        conversation.turns.removeFirst(dropped)
        if ask(question.index - dropped, question.question) { return }
        conversation = old
        shorten()
    }

    /// Ask what did not fit in a new conversation; the old one is kept.
    public func beginAnew() {
        guard let question = full else { return }
        conversation.draft = ""
        save()
        let old = conversation
        show(Self.fresh(store, settings))
        conversation.system = old.system
        conversation.sampling = old.sampling
        if !ask(0, question.question) { restoreDraft(question.question) }
    }

    /// Let the user shorten what did not fit; it stands in the draft.
    public func shorten() {
        guard let question = full else { return }
        full = nil
        restoreDraft(question.question)
    }

    // MARK: -

    private func ask(_ index: Int, _ text: String) -> Bool {
        if pending != nil || isBlank(text) { return false }
        guard
            let settings = try? WriteSettings(
                sampling: adoptedSampling(), maxTokens: settings.maxTokens),
            let (session, model, stop) = host.take()
        else { return false }
        if conversation.turns.isEmpty { conversation.title = titleOf(text) }
        conversation.sampling = settings.sampling
        conversation.model = model.name
        // One that was meant for other models is kept; the settings say that this one has no place for it.
        let question = Question(
            system: model.takesSystem ? conversation.system : "",
            turns: conversation.turns.map(\.message), index: index, text: text, settings: settings)
        pending = Pending(index: index, question: text)
        problem = nil
        full = nil
        conversation.draft = ""
        save()
        Task {
            let end = await LlamaAppCore.ask(
                question, session, chats: model.noChatReason == nil, stop: stop,
                onPiece: { hear($0) }, figures: { figures($0) })
            host.giveBack()
            take(end)
        }
        return true
    }

    /// How a conversation draws: one that begins, and whose user chose nothing, as the model asks.
    private func adoptedSampling() -> Sampling {
        let isNew = conversation.turns.isEmpty && conversation.model.isEmpty && settings.sampling == nil
        guard isNew, conversation.sampling == .defaults, let model = host.state.loaded else {
            return conversation.sampling
        }
        return model.sampling
    }

    private func hear(_ piece: Piece) {
        switch piece {
        case .reading(let done, let total):
            pending?.readTokens = done
            pending?.totalTokens = total
        case .text(let more):
            pending?.answer += more
            if Date().timeIntervalSince(savedAt) >= saveEverySeconds { save() }
        case .end:
            break
        }
    }

    private func figures(_ stats: GenerationStats) -> AnswerFigures {
        AnswerFigures(
            newTokens: stats.newTokens, tokensPerS: stats.decodeTokensPerS,
            timeToFirstTokenS: stats.timeToFirstTokenS, contextTokens: stats.contextTokens,
            maxContext: stats.maxContext, memoryBytes: device.appMemoryBytes(), thermal: device.thermal())
    }

    private func take(_ end: AnswerEnd) {
        guard let asked = pending else { return }
        pending = nil
        switch end {
        case .written(let answer):
            keep(asked, answer)
        case .full(let overflow):
            full = FullContext(index: asked.index, question: asked.question, overflow: overflow)
            if conversation.draft.isEmpty { conversation.draft = asked.question }
        case .failed(let error, let text):
            problem = error
            host.note("answer", error)
            keep(asked, SavedTurn(Message(.assistant, text), isWhole: false))
        }
        save()
    }

    /// Make question and answer turns; an answer without a word gives the question back.
    private func keep(_ asked: Pending, _ answer: SavedTurn) {
        if answer.message.text.isEmpty && !answer.isWhole {
            if asked.index == conversation.turns.count { restoreDraft(asked.question) }
            return
        }
        let question = SavedTurn(Message(.user, asked.question))
        conversation.turns = conversation.turns.prefix(asked.index) + [question, answer]
    }

    private func restoreDraft(_ text: String) {
        if isBlank(conversation.draft) { conversation.draft = text }
    }

    private func keptTurns() -> [SavedTurn] {
        guard let asked = pending else { return conversation.turns }
        let question = SavedTurn(Message(.user, asked.question))
        let answer = SavedTurn(Message(.assistant, asked.answer), isWhole: false)
        return conversation.turns.prefix(asked.index) + [question, answer]
    }

    /// The process was ended before the first word: the question is typed, and not asked.
    private func mended(_ found: Conversation) -> Conversation {
        guard let last = found.turns.last, last.message.text.isEmpty, !last.isWhole, found.turns.count >= 2
        else { return found }
        var mended = found
        let question = found.turns[found.turns.count - 2].message.text
        mended.turns.removeLast(2)
        if mended.draft.isEmpty { mended.draft = question }
        return mended
    }

    private func show(_ next: Conversation) {
        conversation = next
        settings.conversation = next.turns.isEmpty && next.draft.isEmpty ? "" : next.id
        problem = nil
        full = nil
    }

    private static func fresh(_ store: ConversationStore, _ settings: AppSettings) -> Conversation {
        Conversation(
            id: store.newId(), title: "", model: "", changedMs: 0, system: settings.system,
            sampling: settings.sampling ?? .defaults)
    }
}

/// A conversation gets its name from its first message.
private func titleOf(_ text: String) -> String {
    let line = text.split(whereSeparator: \.isNewline).first { !isBlank(String($0)) } ?? ""
    let title = line.trimmingCharacters(in: .whitespaces)
    if title.count <= titleCharacters { return title }
    return title.prefix(titleCharacters).trimmingCharacters(in: .whitespaces) + "…"
}
