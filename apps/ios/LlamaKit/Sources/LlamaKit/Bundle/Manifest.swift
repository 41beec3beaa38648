/// Newest version of manifest.json that this app reads.
public let manifestVersion = 2

/// Largest length of a manifest.json; that of an 8B has under 200 kB.
let mostManifestBytes = 16 * 1024 * 1024

/// A file as a manifest lists it.
public struct FileEntry: Sendable, Equatable {
    /// Path inside the folder.
    public let path: String

    /// SHA-256 of its content in lower-case hex.
    public let sha256: String

    /// Length of its content.
    public let sizeBytes: Int64
}

/// What a model needs of memory, as the exporter counts it.
public struct MemoryNeed: Sendable, Equatable {
    /// What stays in memory besides the cache.
    public let residentBytes: Int64

    /// Growth of the KV cache with each token.
    public let kvBytesPerToken: Int64

    /// Make it of its numbers, which are not negative.
    public init(residentBytes: Int64, kvBytesPerToken: Int64) {
        self.residentBytes = residentBytes
        self.kvBytesPerToken = kvBytesPerToken
    }
}

/// manifest.json: what a bundle holds and how it is run.
public struct Manifest: Sendable {
    /// Version of the format.
    public let formatVersion: Int

    /// Runtime that the artifact is for: `onnx`, `executorch` or `coreml`.
    public let target: String

    /// Path inside the folder of what the runtime loads.
    public let artifact: String

    /// Name that people know the model by.
    public let modelName: String

    /// Largest number of positions in a conversation.
    public let maxContext: Int

    /// Whether a call gives the logits of every position, or the last one's alone.
    public let allLogits: Bool

    /// How the weights are stored, such as `int4`.
    public let recipe: String

    /// Mean number of bits of a weight.
    public let bitsPerWeight: Double

    /// Path inside the folder of the tokenizer.
    public let tokenizerFile: String

    /// Number of token ids.
    public let vocabSize: Int

    /// Ids that end an answer.
    public let stopIds: Set<Int32>

    /// Listed files in the manifest's order, each path once.
    public let files: [FileEntry]

    /// Versions by package name.
    public let createdWith: [String: String]

    /// What the model needs; nil: the exporter was too old to say.
    public let memory: MemoryNeed?

    /// Whether the head gives some tokens' logits alone: it classifies and cannot write.
    public let isPruned: Bool

    /// The manifest's object `chat`; nil: the exporter was too old to say.
    public let chat: JsonFields?

    /// Size of the listed files together, without the manifest.
    public var sizeBytes: Int64 { files.reduce(0) { $0 + $1.sizeBytes } }

    /// Refuse a model that cannot write, because its head was pruned to the words of a verdict.
    ///
    /// - Throws: ``BundleError`` if it is such a model
    public func requireWriter() throws {
        if !isPruned { return }
        throw BundleError(
            "\(modelName) judges texts and cannot write any: its head was pruned to a few tokens",
            hint: "Ask it with llama-export classify, or export the model without --head-tokens.",
            kind: .other)
    }

    /// Parse the bytes of a manifest.json.
    ///
    /// - Parameters:
    ///   - content: UTF-8
    ///   - place: path or address, for messages
    /// - Throws: ``BundleError`` if it is no manifest, one of a newer format, or one that cannot be trusted
    public static func parse(_ content: [UInt8], where place: String = manifestName) throws -> Manifest {
        if content.count > mostManifestBytes {
            throw BundleError("\(place) is larger than \(mostManifestBytes) bytes", hint: damagedHint)
        }
        do {
            return try ManifestReader(parseJson(content, where: place).fields(where: place)).read()
        } catch let error as BadInput {
            throw BundleError(error.message, hint: damagedHint)
        }
    }

    static let damagedHint = "The bundle was changed or is damaged: copy it again, or export it again."
}
