import Foundation
import LlamaKit

/// What the user chose, and what the app must know after it was ended.
@MainActor
public final class AppSettings {
    /// Fewest positions of a context that anybody can talk in.
    public static let fewestContext = 128

    private let stored: UserDefaults

    public init(_ stored: UserDefaults) {
        self.stored = stored
    }

    /// System message of new conversations.
    public var system: String {
        get { text("system") }
        set { stored.set(newValue, forKey: "system") }
    }

    /// Largest number of positions of a model.
    public var contextTokens: Int { number("context_tokens", or: 4096) }

    /// Largest number of tokens of an answer.
    public var maxTokens: Int { number("max_tokens", or: 1024) }

    /// Keep the lengths.
    ///
    /// - Throws: ``BadInput`` if one of them is too short
    public func keep(contextTokens: Int, maxTokens: Int) throws {
        if contextTokens < Self.fewestContext {
            throw BadInput(
                "expected a context of at least \(Self.fewestContext) tokens, found \(contextTokens)",
                hint: "Enter more.", kind: .setting)
        }
        _ = try WriteSettings(maxTokens: maxTokens)
        stored.set(contextTokens, forKey: "context_tokens")
        stored.set(maxTokens, forKey: "max_tokens")
    }

    /// How new conversations draw tokens; nil: as the model's bundle asks.
    public var sampling: Sampling? {
        get {
            guard let kept = stored.dictionary(forKey: "sampling") else { return nil }
            func number(_ key: String) -> Double { Double(kept[key] as? String ?? "") ?? -1 }
            return try? Sampling(
                temperature: number("temperature"), topP: number("top_p"), topK: Int(number("top_k")),
                seed: (kept["seed"] as? String).flatMap { Int64($0) }, minP: number("min_p"),
                repetitionPenalty: number("repetition_penalty"))
        }
        set {
            guard let sampling = newValue else { return stored.removeObject(forKey: "sampling") }
            var kept = [
                "temperature": "\(sampling.temperature)", "top_p": "\(sampling.topP)",
                "top_k": "\(sampling.topK)", "min_p": "\(sampling.minP)",
                "repetition_penalty": "\(sampling.repetitionPenalty)",
            ]
            kept["seed"] = sampling.seed.map { "\($0)" }
            stored.set(kept, forKey: "sampling")
        }
    }

    /// Id of the conversation that was open; empty: none.
    public var conversation: String {
        get { text("conversation") }
        set { stored.set(newValue, forKey: "conversation") }
    }

    /// Name of the model that was in memory; empty: none. Paths of an app change with each update.
    public var model: String {
        get { text("model") }
        set { stored.set(newValue, forKey: "model") }
    }

    /// Name of the model that is just being loaded: who dies of it is not loaded again by itself.
    public var loading: String {
        get { text("loading") }
        set {
            stored.set(newValue, forKey: "loading")
            // At once: the process may be ended before a later write.
            stored.synchronize()
        }
    }

    /// Return where an unfinished download comes from, by its name; the token is not with it.
    public func downloadAddress(_ name: String) -> String? { addresses[name] }

    /// Keep where a download comes from; nil forgets it.
    public func keepDownloadAddress(_ name: String, _ address: String?) {
        var kept = addresses
        kept[name] = address
        stored.set(kept, forKey: "downloads")
    }

    private var addresses: [String: String] {
        stored.dictionary(forKey: "downloads") as? [String: String] ?? [:]
    }

    private func text(_ key: String) -> String { stored.string(forKey: key) ?? "" }

    private func number(_ key: String, or other: Int) -> Int {
        stored.object(forKey: key) == nil ? other : stored.integer(forKey: key)
    }
}
