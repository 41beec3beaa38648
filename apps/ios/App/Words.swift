import Foundation
import LlamaAppCore
import LlamaKit

/// Sentences with names and numbers in them, in the user's language.
///
/// In the keys a text is `\(text)`, and a number `\(number, specifier: "%lld")`.
enum Words {
    // MARK: The model

    /// Return what the model is at, in a line.
    static func status(_ state: HostState) -> String {
        switch state {
        case .loading(let name, _): return String(localized: "Loading \(name)…")
        case .ready(let model), .busy(let model):
            return String(
                localized: "\(model.name) · \(model.contextTokens, specifier: "%lld") tokens of context")
        case .failed, .idle: return String(localized: "No model loaded")
        }
    }

    static func loading(_ name: String, _ step: LoadStep) -> String {
        switch step {
        case .opening:
            return String(localized: "Loading \(name)… The first time this takes up to a minute.")
        case .waiting:
            return String(localized: "\(name) is loaded as soon as the app is on the screen.")
        case .checking(let done, let size):
            return String(
                localized: "Checking the files of \(name): \(bytes(done)) of \(bytes(size))")
        }
    }

    static func idle(last: String, freed: String?) -> String {
        if let freed {
            return String(
                localized:
                    """
                    \(freed) was unloaded, because the system needed its memory. Your conversation \
                    is still here.
                    """
            )
        }
        if last.isEmpty {
            return String(localized: "No model is loaded. Choose one, or bring one onto this device.")
        }
        return String(localized: "\(last) is not loaded.")
    }

    static func endedLoading(_ name: String) -> String {
        String(
            localized:
                """
                The app ended while \(name) was being loaded, most often because it took too much \
                memory. It was not loaded again by itself. A smaller model or a shorter context \
                needs less.
                """
        )
    }

    static func continues(_ name: String, _ reason: String) -> String {
        String(
            localized:
                """
                \(name) does not chat: \(reason). It continues each text that you send, without \
                what was said before.
                """
        )
    }

    static func noSystem(_ name: String) -> String {
        String(
            localized:
                "\(name) has no place for a system prompt in its dialogs. This one is kept for other models.")
    }

    static func format(_ manifest: Manifest, status: String?) -> String {
        let names = ["coreml": "Core ML", "executorch": "ExecuTorch", "onnx": "ONNX"]
        let runtime = names[manifest.target] ?? manifest.target
        let bits = decimal(manifest.bitsPerWeight, 1)
        let weights = String(localized: "\(manifest.recipe), \(bits) bits")
        let parts = [runtime, weights, bytes(manifest.sizeBytes), status]
        return parts.compactMap { $0 }.joined(separator: " · ")
    }

    static func fetching(_ job: ModelJob) -> String {
        guard let progress = job.progress else { return String(localized: "Fetching \(job.name)…") }
        return String(
            localized: "\(job.name): \(bytes(progress.doneBytes)) of \(bytes(progress.sizeBytes))")
    }

    static func askDelete(_ name: String) -> String { String(localized: "Delete “\(name)”?") }

    // MARK: Memory

    static func useTokens(_ tokens: Int) -> String {
        String(localized: "Use \(tokens, specifier: "%lld") tokens")
    }

    static func memoryShort(_ bundle: ModelBundle, _ memory: MemoryQuestion) -> String {
        let name = bundle.folder.lastPathComponent
        let need = bytes(memory.needBytes)
        let free = bytes(memory.availableBytes)
        let short = String(
            localized:
                """
                \(name) needs about \(need) with a context of \
                \(memory.contextTokens, specifier: "%lld") tokens, and \(free) are free.
                """
        )
        let end = String(localized: "The system may end an app that takes too much.")
        guard let smaller = memory.smaller else { return "\(short)\n\n\(end)" }
        let less = String(
            localized: """
                With \(smaller.tokens, specifier: "%lld") tokens it needs \(bytes(smaller.needBytes)).
                """)
        return "\(short) \(less)\n\n\(end)"
    }

    // MARK: Answers

    static func said(_ text: String) -> String { String(localized: "You: \(text)") }

    static func answered(_ text: String) -> String { String(localized: "Model: \(text)") }

    /// Return what stands under an answer: its figures, as far as they are known.
    static func under(_ turn: SavedTurn) -> String {
        let cut = turn.isWhole ? nil : String(localized: "Cut short")
        return [cut, turn.figures.map { figures($0) }].compactMap { $0 }.joined(separator: " · ")
    }

    static func waiting(_ asked: Pending) -> String {
        if !asked.answer.isEmpty { return "" }
        if asked.totalTokens == 0 { return String(localized: "Thinking…") }
        return String(
            localized:
                """
                Reading \(asked.readTokens, specifier: "%lld") of \
                \(asked.totalTokens, specifier: "%lld") tokens…
                """
        )
    }

    private static func figures(_ figures: AnswerFigures) -> String {
        var parts = [String(localized: "\(figures.newTokens, specifier: "%lld") tokens")]
        if figures.tokensPerS > 0 {
            parts.append(String(localized: "\(decimal(figures.tokensPerS, 1)) per second"))
        }
        parts.append(String(localized: "first after \(decimal(figures.timeToFirstTokenS, 2)) s"))
        if let most = figures.maxContext {
            parts.append(
                String(
                    localized:
                        "context \(figures.contextTokens, specifier: "%lld") of \(most, specifier: "%lld")"))
        }
        if let memory = figures.memoryBytes { parts.append(String(localized: "memory \(bytes(memory))")) }
        if let thermal = figures.thermal { parts.append(String(localized: "heat: \(heat(thermal))")) }
        return parts.joined(separator: " · ")
    }

    // MARK: A full context

    static func full(_ overflow: Overflow) -> String {
        let what = String(
            localized:
                """
                With this message the conversation is \(overflow.needed, specifier: "%lld") tokens \
                long. The context has \(overflow.maxContext, specifier: "%lld"), which must hold \
                the answer too.
                """
        )
        guard let kept = overflow.keptTokens else {
            let alone = String(
                localized:
                    """
                    Even alone it does not fit: shorten the message or the system prompt, or choose \
                    a longer context in the settings.
                    """
            )
            return "\(what)\n\n\(alone)"
        }
        let drop = String(
            localized:
                """
                Without the \(overflow.droppedTurns, specifier: "%lld") oldest messages, \
                \(kept, specifier: "%lld") tokens are left.
                """
        )
        return "\(what)\n\n\(drop)"
    }

    // MARK: Conversations

    static func summary(_ conversation: Conversation) -> String {
        let changed = Date(timeIntervalSince1970: Double(conversation.changedMs) / 1000)
        let count = String(localized: "\(conversation.turns.count, specifier: "%lld") messages")
        return "\(count) · \(changed.formatted(date: .abbreviated, time: .shortened))"
    }

    // MARK: Settings

    static func field(_ field: SettingsForm.Field) -> String {
        switch field {
        case .temperature: return String(localized: "Temperature (0: always the likeliest)")
        case .topP: return String(localized: "Top-p (above 0, to 1)")
        case .topK: return String(localized: "Top-k (0: all)")
        case .minP: return String(localized: "Min-p (0 to 1)")
        case .repetitionPenalty: return String(localized: "Repetition penalty (1: none)")
        case .seed: return String(localized: "Seed")
        case .maxTokens: return String(localized: "Longest answer, in tokens")
        case .contextTokens: return String(localized: "Context, in tokens")
        }
    }

    static func wrongNumber(_ fault: SettingsFault) -> String {
        let name = field(fault.field)
        if fault.field.isWhole {
            return String(localized: "\(name): expected a whole number, found “\(fault.found)”")
        }
        return String(localized: "\(name): expected a number, found “\(fault.found)”")
    }

    // MARK: Numbers

    /// Return bytes as people read them, such as `1.2 GB`.
    static func bytes(_ count: Int64) -> String { count.formatted(.byteCount(style: .file)) }

    static func decimal(_ value: Double, _ digits: Int) -> String {
        value.formatted(.number.precision(.fractionLength(digits)))
    }

    /// Return the system's word for its heat in the user's language.
    static func heat(_ thermal: String) -> String {
        switch thermal {
        case "nominal": return String(localized: "nominal")
        case "fair": return String(localized: "fair")
        case "serious": return String(localized: "serious")
        case "critical": return String(localized: "critical")
        default: return thermal
        }
    }
}
