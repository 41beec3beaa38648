import Foundation
import LlamaKit

/// Loads an artifact, on the queue that will step it.
public typealias EngineOpener = @Sendable () throws -> any StepModel

/// What opens the two halves of a model; a test puts its own in.
public protocol Engines: Sendable {
    /// Targets that can be loaded, as a manifest names them.
    var targets: [String] { get }

    /// Do what a bundle needs once, such as compiling it, and return what loads it.
    ///
    /// - Parameters:
    ///   - bundle: a bundle for one of ``targets``
    ///   - contextTokens: largest number of positions, at most the manifest's
    /// - Throws: ``EngineError`` if the runtime refuses it
    func prepare(_ bundle: ModelBundle, contextTokens: Int) async throws -> EngineOpener

    /// Load the tokenizer of a bundle.
    func openTokenizer(_ folder: URL) throws -> any Tokenizer

    /// Forget what ``prepare(_:contextTokens:)`` keeps of a bundle, which is about to be deleted.
    func forget(_ folder: URL)

    /// Return the name of the runtime for a target, with its version where it has one.
    func runtime(of target: String) -> String
}

/// What a device says of itself.
public protocol Device: Sendable {
    /// Model and system, such as `iPhone16,1, iOS 18.4`.
    var name: String { get }

    /// Facts of the device by their names, for a report.
    var facts: KeyValuePairs<String, String> { get }

    /// Size of its memory, in bytes.
    var totalBytes: Int64 { get }

    /// Memory that this app may still take, in bytes.
    func availableBytes() -> Int64

    /// Memory that this app takes, as the system counts it against its limit, in bytes; nil: unknown.
    func appMemoryBytes() -> Int64?

    /// How hot it is, in the system's word; nil: it does not say.
    func thermal() -> String?
}

/// Keeps secrets for the hosts that they are for.
public protocol TokenStore: Sendable {
    /// Return the secret of a host, or nil.
    func token(for host: String) -> String?

    /// Keep a secret; nil deletes it.
    func keep(_ token: String?, for host: String)
}
