import Foundation
import LlamaKit

/// A number that a user typed and that is none.
public struct SettingsFault: Error, Sendable, Equatable {
    public let field: SettingsForm.Field
    public let found: String
}

/// The settings as a user types them.
public struct SettingsForm: Sendable, Equatable {
    /// Fields that hold a number.
    public enum Field: String, Sendable, CaseIterable {
        case temperature, topP, topK, minP, repetitionPenalty, seed, maxTokens, contextTokens

        /// Whether the number is a whole one.
        public var isWhole: Bool {
            switch self {
            case .topK, .seed, .maxTokens, .contextTokens: true
            case .temperature, .topP, .minP, .repetitionPenalty: false
            }
        }
    }

    /// What the model is to be.
    public var system: String

    /// Numbers as they are typed.
    public var typed: [Field: String]

    /// Fill it.
    public init(system: String, sampling: Sampling, maxTokens: Int, contextTokens: Int) {
        self.system = system
        typed = [.maxTokens: "\(maxTokens)", .contextTokens: "\(contextTokens)"]
        show(sampling)
    }

    /// Put a sampling's numbers in.
    public mutating func show(_ sampling: Sampling) {
        typed[.temperature] = "\(sampling.temperature)"
        typed[.topP] = "\(sampling.topP)"
        typed[.topK] = "\(sampling.topK)"
        typed[.minP] = "\(sampling.minP)"
        typed[.repetitionPenalty] = "\(sampling.repetitionPenalty)"
        typed[.seed] = sampling.seed.map { "\($0)" } ?? ""
    }

    /// Return how tokens are to be drawn.
    ///
    /// - Throws: ``SettingsFault`` if a field holds no number; ``BadInput`` if one is out of its range
    public func sampling() throws -> Sampling {
        try Sampling(
            temperature: decimal(.temperature), topP: decimal(.topP), topK: whole(.topK),
            seed: text(.seed).isEmpty ? nil : Int64(whole(.seed)), minP: decimal(.minP),
            repetitionPenalty: decimal(.repetitionPenalty))
    }

    /// Keep all of it, for this conversation and new ones; nothing where a number is wrong.
    ///
    /// - Throws: as ``sampling()``
    @MainActor
    public func save(_ settings: AppSettings, _ session: Session, model: LoadedModel?) throws {
        let sampling = try sampling()
        try settings.keep(contextTokens: whole(.contextTokens), maxTokens: whole(.maxTokens))
        settings.sampling = sampling == model?.sampling ? nil : sampling
        settings.system = system
        session.configure(system: system, sampling: sampling)
    }

    private func text(_ field: Field) -> String {
        (typed[field] ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private func decimal(_ field: Field) throws -> Double {
        let typed = text(field).replacingOccurrences(of: ",", with: ".")
        guard let number = Double(typed) else { throw SettingsFault(field: field, found: text(field)) }
        return number
    }

    private func whole(_ field: Field) throws -> Int {
        guard let number = Int(text(field)) else { throw SettingsFault(field: field, found: text(field)) }
        return number
    }
}
