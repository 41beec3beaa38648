import LlamaKit

// The app itself and its screen.
private let reservedBytes: Int64 = 200 << 20

/// What to ask the user before a model is loaded whose memory is not there; numbers are bytes.
public struct MemoryQuestion: Sendable, Equatable {
    /// Number of positions that are wanted.
    public let contextTokens: Int

    /// Memory that the model needs with them.
    public let needBytes: Int64

    /// Memory that the system has to give.
    public let availableBytes: Int64

    /// A context with which it fits, and its need; nil: it fits with none.
    public let smaller: Smaller?

    /// A context that the memory has room for.
    public struct Smaller: Sendable, Equatable {
        public let tokens: Int
        public let needBytes: Int64
    }

    /// Compare a model with the memory that there is.
    ///
    /// Where its bundle does not say what it needs, its files are taken for it.
    ///
    /// - Parameter wanted: number of positions that are wanted
    /// - Returns: nil where it fits
    public init?(_ manifest: Manifest, contextTokens wanted: Int, availableBytes: Int64) {
        let context = min(wanted, manifest.maxContext)
        let need = manifest.memory ?? MemoryNeed(residentBytes: manifest.sizeBytes, kvBytesPerToken: 0)
        let answer = askMemory(
            need, contextTokens: context, availableBytes: availableBytes, reservedBytes: reservedBytes)
        contextTokens = context
        needBytes = need.bytes(for: context)
        self.availableBytes = availableBytes
        switch answer {
        case .fits, .unknown: return nil
        case .smaller(let tokens, let needBytes, _): smaller = Smaller(tokens: tokens, needBytes: needBytes)
        case .tooLarge: smaller = nil
        }
    }
}
