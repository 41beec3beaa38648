/// The facts of a Core ML package that a conversation needs, read from a manifest's `graph`.
///
/// It knows the three signatures that an export can have; it does not know how any of them is called.
/// Shapes: L ``layers``, K ``heads``, D ``headDim``, C ``maxContext``, V ``vocabSize``.
public struct CoreMLLayout: Sendable, Equatable {
    /// Which of the signatures a package has.
    public enum Form: Sendable, Equatable {
        /// One function of any length; the KV cache is a state, and the mask's length is the position.
        case flexible

        /// The functions `prefill`, of so many tokens, and `decode`, of one, over one state.
        case fixed(prefillTokens: Int)

        /// One function of any length; the KV cache goes in and comes out longer.
        case io
    }

    /// Which signature it is.
    public let form: Form

    /// Number L of layers.
    public let layers: Int

    /// Number K of heads that have a cache.
    public let heads: Int

    /// Number D of one head's numbers.
    public let headDim: Int

    /// Largest number of positions in a conversation.
    public let maxContext: Int

    /// Number of logits.
    public let vocabSize: Int

    private static let hint = "Export the model again with --target coreml."
    // Buffers are as long as these numbers, and no model has larger ones.
    private static let most = 1 << 24

    /// Read a signature.
    ///
    /// - Parameter graph: the manifest's `graph`
    /// - Throws: ``BundleError`` if it is not the signature of a Core ML package
    public init(graph: JsonFields) throws {
        do {
            maxContext = try graph.int("max_context")
            if !(1...Self.most).contains(maxContext) {
                throw Self.fault(graph, "max_context", "1 to \(Self.most)")
            }
            let isState = try graph.text("kv_cache") == "state"
            let caches = try isState ? graph.list("states") : Array(graph.list("inputs").dropFirst())
            (layers, heads, headDim) = try Self.cacheShape(
                caches, positions: isState ? maxContext : nil, where: graph.place)
            form = try Self.form(graph, isState: isState, maxContext: maxContext)
            vocabSize = try Self.vocabSize(graph)
        } catch let error as BadInput {
            throw BundleError(error.message, hint: Self.hint)
        }
    }

    /// Return the shape of a cache with so many positions, `[L, 1, K, positions, D]`.
    public func cacheShape(positions: Int) -> [Int] { [layers, 1, heads, positions, headDim] }

    private static func form(_ graph: JsonFields, isState: Bool, maxContext: Int) throws -> Form {
        guard graph.contains("functions"), case let functions = try graph.fields("functions"),
            !functions.json.entries.isEmpty
        else { return isState ? .flexible : .io }
        let prefillTokens = try functions.int("prefill")
        guard isState, (1...maxContext).contains(prefillTokens), try functions.int("decode") == 1,
            functions.json.entries.count == 2
        else {
            throw fault(graph, "functions", "none, or prefill and decode over states")
        }
        return .fixed(prefillTokens: prefillTokens)
    }

    private static func cacheShape(
        _ tensors: [Json], positions: Int?, where place: String
    ) throws -> (Int, Int, Int) {
        let expected = "keyCache and valueCache, alike, [L, 1, K, positions, D]"
        let shapes = try tensors.map { tensor -> (String, [Json]) in
            let fields = try tensor.fields(where: place)
            return (try fields.text("name"), try fields.list("shape"))
        }
        guard shapes.map(\.0) == ["keyCache", "valueCache"], shapes[0].1 == shapes[1].1,
            shapes[0].1.count == 5
        else { throw BadInput("\(place): expected \(expected)", hint: hint) }
        let sizes = shapes[0].1.map { $0.asNumber.flatMap { Int($0.text) } }
        guard let layers = sizes[0], sizes[1] == 1, let heads = sizes[2], sizes[3] == positions,
            let headDim = sizes[4], min(layers, heads, headDim) >= 1, layers <= most,
            heads <= most / layers, headDim <= most / layers / heads
        else { throw BadInput("\(place): expected \(expected)", hint: hint) }
        return (layers, heads, headDim)
    }

    private static func vocabSize(_ graph: JsonFields) throws -> Int {
        let outputs = try graph.list("outputs")
        guard let first = try outputs.first?.fields(where: graph.place),
            try first.text("name") == CoreMLNames.logits,
            case let shape = try first.list("shape"), shape.count == 3,
            let size = shape[2].asNumber.flatMap({ Int($0.text) }), (1...most).contains(size)
        else { throw fault(graph, "outputs", "the first to be logits [1, rows, V]") }
        return size
    }

    private static func fault(_ graph: JsonFields, _ key: String, _ expected: String) -> BadInput {
        BadInput("\(graph.at(key)): expected \(expected)", hint: hint)
    }
}

/// Names of a package's inputs, outputs and functions.
public enum CoreMLNames {
    /// Token ids, int32 `[1, n]`.
    public static let inputIds = "inputIds"

    /// Zeros, float16 `[1, 1, 1, e]`; e is the number of positions with the new ones.
    public static let causalMask = "causalMask"

    /// Number of positions before, int32 `[1]`, of a package with two functions.
    public static let position = "position"

    /// Number of ids that count, int32 `[1]`, of the function `prefill`.
    public static let length = "length"

    /// Keys of all layers, float16 `[L, 1, K, positions, D]`: a state, or an input.
    public static let keyCache = "keyCache"

    /// Values of all layers; as ``keyCache``.
    public static let valueCache = "valueCache"

    /// ``keyCache`` with the new rows, where caches go in and out.
    public static let presentKeys = "presentKeys"

    /// ``valueCache`` with the new rows.
    public static let presentValues = "presentValues"

    /// Logits, float16 `[1, rows, V]`.
    public static let logits = "logits"

    /// The function of many tokens.
    public static let prefill = "prefill"

    /// The function of one token.
    public static let decode = "decode"
}
