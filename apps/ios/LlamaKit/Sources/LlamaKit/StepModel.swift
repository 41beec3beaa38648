/// A loaded artifact with one KV cache, whatever runtime is behind it.
///
/// It belongs to one actor, and its buffers to the engine. V is ``vocabSize``.
public protocol StepModel: AnyObject {
    /// Number of logits, and of token ids that may be read.
    var vocabSize: Int { get }

    /// Largest number of positions that the cache can hold.
    var maxContext: Int { get }

    /// Read tokens from a position on and return the logits `[V]` after the last of them.
    ///
    /// What the cache held from `position` on is forgotten, so rewinding is free.
    ///
    /// - Parameters:
    ///   - ids: token ids `[n]`, n at least 1
    ///   - position: number of positions to keep, at most the number that was written
    /// - Returns: logits `[V]`, valid until the next call
    /// - Throws: ``PromptError`` if there are no ids, one is outside the vocabulary, or they do not fit;
    ///   ``EngineError`` if the runtime failed; ``StepStopped`` if a stop was asked for meanwhile,
    ///   position and cache being as after a rewind
    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float>

    /// What asks the step that runs to end early, with ``StepStopped``; nil where the engine cannot.
    ///
    /// It is called from any thread, and the step may finish first. What is not running is not stopped, so
    /// whoever calls it keeps a mark of their own as well, and looks at it before each step.
    var interrupt: (@Sendable () -> Void)? { get }
}

extension StepModel {
    public var interrupt: (@Sendable () -> Void)? { nil }

    /// Refuse tokens that cannot follow those that a cache holds.
    ///
    /// Every engine calls it, so that the same tokens are refused in the same words.
    ///
    /// - Parameters:
    ///   - ids: token ids `[n]`
    ///   - position: number of positions to keep
    ///   - held: number of positions that were written
    /// - Throws: ``PromptError`` if there are no ids, one is outside the vocabulary, they do not fit, or
    ///   the position is after the last one written
    public func requireTokens(_ ids: [Int32], at position: Int, held: Int) throws {
        if ids.isEmpty {
            throw PromptError("there are no tokens to run", hint: "Give a prompt of at least one token.")
        }
        if position < 0 || position > held {
            throw PromptError(
                "cannot go on from position \(position): the cache holds \(held) tokens", hint: "")
        }
        if ids.count > maxContext - position {
            throw PromptError(
                "\(ids.count) more tokens do not fit: the cache holds \(position) of \(maxContext) positions",
                hint: "Shorten the text, or export the model with a larger --max-context.")
        }
        if let outside = ids.first(where: { $0 < 0 || Int($0) >= vocabSize }) {
            throw PromptError(
                "token \(outside) is outside the vocabulary of \(vocabSize)",
                hint: "The tokenizer belongs to another model: get the whole bundle again.")
        }
    }
}
