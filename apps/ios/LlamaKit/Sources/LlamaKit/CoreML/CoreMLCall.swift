/// One call of a Core ML package: what it is given, the caches left out.
///
/// The same facts say it for each form of a package; whoever runs it writes them into arrays.
public struct CoreMLCall: Sendable, Equatable {
    /// Name of the function; nil for a package's only one.
    public let function: String?

    /// Token ids `[1, width]`; behind ``length`` they are padding.
    public let ids: [Int32]

    /// Number of positions that come before.
    public let position: Int

    /// Number of ids that count.
    public let length: Int

    /// Columns of `causalMask`, float16 `[1, 1, 1, columns]`, all zeros: its length is the position.
    public var maskColumns: Int { position + length }

    /// Rows of logits that come out, of which the last one counts.
    public var logitsRows: Int { function == nil ? length : 1 }
}

/// Plans the calls that append tokens to a conversation.
public struct CoreMLPlan: Sendable, Equatable {
    /// Number of ids of one call of any length: its logits come out for every row.
    public static let pieceTokens = 128

    /// Which signature the package has.
    public let form: CoreMLLayout.Form

    /// Number of positions that the package's cache has.
    public let maxContext: Int

    /// Plan the calls of a package.
    public init(form: CoreMLLayout.Form, maxContext: Int) {
        self.form = form
        self.maxContext = maxContext
    }

    /// Return the call that reads the first of some tokens.
    ///
    /// - Parameters:
    ///   - ids: token ids `[n]`, n at least 1
    ///   - position: number of positions that come before
    /// - Returns: a call; its `length` says how many of the ids it reads
    public func nextCall(_ ids: ArraySlice<Int32>, at position: Int) -> CoreMLCall {
        guard case .fixed(let prefillTokens) = form else {
            let piece = Array(ids.prefix(Self.pieceTokens))
            return CoreMLCall(function: nil, ids: piece, position: position, length: piece.count)
        }
        // `prefill` writes its padding too, which must fit as well.
        if ids.count == 1 || position + prefillTokens > maxContext {
            return CoreMLCall(
                function: CoreMLNames.decode, ids: Array(ids.prefix(1)), position: position, length: 1)
        }
        let piece = Array(ids.prefix(prefillTokens))
        let padding = [Int32](repeating: 0, count: prefillTokens - piece.count)
        return CoreMLCall(
            function: CoreMLNames.prefill, ids: piece + padding, position: position, length: piece.count)
    }
}
