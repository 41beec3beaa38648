/// Number of tokens that are read at once.
///
/// A prompt can be stopped between two pieces, and attention's memory grows with their length.
public let pieceTokens = 128

/// A model with the record of the tokens in its KV cache, so that nothing is read twice.
///
/// A text that begins like what the cache holds needs only its rest to be read: the next turn of a chat its
/// new tokens, an edited one what follows the edit. Whatever interrupts a call, the record stays true: it
/// names a token only after the model has it, and every call says where it begins. It belongs to one actor.
public final class KeptCache {
    let model: any StepModel

    /// Most positions to use, out of the model's own.
    public let maxContext: Int

    /// The tokens in the cache.
    public private(set) var tokens: [Int32] = []

    /// Keep the record of a model.
    ///
    /// - Parameters:
    ///   - model: model with an empty cache
    ///   - maxContext: most positions to use; nil: all that the model has
    /// - Throws: ``BadInput`` if there are no so many positions
    public init(_ model: any StepModel, maxContext: Int? = nil) throws {
        let most = model.maxContext
        let wanted = maxContext ?? most
        if wanted < 1 || wanted > most {
            throw BadInput(
                "the context: expected 1 to \(most), the positions of this bundle; found \(wanted)",
                hint: "Choose a context that the model has.")
        }
        self.model = model
        self.maxContext = wanted
    }

    /// Number V of logits.
    public var vocabSize: Int { model.vocabSize }

    /// Number of tokens in the cache.
    public var position: Int { tokens.count }

    /// Count the tokens at the beginning of a text that need no reading.
    ///
    /// The last token always needs it, because its logits are wanted.
    public func sharedLength(_ ids: [Int32]) -> Int {
        let most = max(0, min(ids.count - 1, position))
        return (0..<most).first { ids[$0] != tokens[$0] } ?? most
    }

    /// Forget what a text does not begin with, and return how many of its tokens remain.
    @discardableResult
    public func keepPrefix(of ids: [Int32]) -> Int {
        tokens.removeSubrange(sharedLength(ids)...)
        return position
    }

    /// Forget every token from a position on; 0 forgets all.
    ///
    /// - Throws: ``PromptError`` if the position is negative, or after the last token
    public func rewind(to position: Int) throws {
        if position < 0 || position > tokens.count {
            throw PromptError(
                "cannot rewind to position \(position): there are \(tokens.count) tokens",
                hint: "Give a position from 0 to \(tokens.count).")
        }
        tokens.removeSubrange(position...)
    }

    /// Append tokens, piece by piece, and return the logits `[V]` after the last of them.
    ///
    /// - Parameters:
    ///   - ids: token ids `[n]`, n at least 1
    ///   - stop: wish to stop, looked at before each piece; an engine that can ends its call early
    ///   - onProgress: called before each piece of a long text, with the number of tokens read so far, and
    ///     of all of them
    /// - Returns: logits, valid until the next call; nil where it was stopped, with what was read by then in
    ///   the cache
    /// - Throws: ``PromptError`` if there are no tokens, one is outside the vocabulary, or they do not fit;
    ///   ``EngineError`` if the runtime failed
    public func read(
        _ ids: [Int32], stop: Stop = Stop(), onProgress: (Int, Int) -> Void = { _, _ in }
    ) throws -> UnsafeBufferPointer<Float>? {
        let room = maxContext - position
        if ids.count > room {
            throw PromptError(
                "\(ids.count) more tokens do not fit: there is room for \(room)",
                hint: "Shorten the text, or choose a larger context.", kind: .contextFull)
        }
        var logits: UnsafeBufferPointer<Float>?
        var start = 0
        repeat {
            if stop.isRequested { return nil }
            if ids.count > pieceTokens { onProgress(start, ids.count) }
            let piece = Array(ids[start..<min(start + pieceTokens, ids.count)])
            logits = try stop.step(model, piece, at: position)
            if logits == nil { return nil }
            tokens += piece
            start += pieceTokens
        } while start < ids.count
        return logits
    }
}
