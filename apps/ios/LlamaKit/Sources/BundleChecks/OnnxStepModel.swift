import COnnxRuntime
import Glibc
import LlamaKit

/// An ONNX artifact in onnxruntime, with its KV cache in place.
///
/// A layer's cache is its input and its output at once, so a step appends rows and copies nothing,
/// and a shorter attention mask is all that a rewind takes.
public final class OnnxStepModel: StepModel {
    public let vocabSize: Int
    public let maxContext: Int

    private static let firstSlots = 512
    private let api: OnnxApi
    private let session: OpaquePointer
    private let layers: Int
    private let heads: Int
    private let headDim: Int
    private var caches: [UnsafeMutableBufferPointer<Float>] = []
    private(set) public var slots = 0
    private let mask: UnsafeMutableBufferPointer<Int64>
    private let logits: UnsafeMutableBufferPointer<Float>
    private var written = 0

    /// - Parameters:
    ///   - path: path of model.onnx, with its data file beside it
    ///   - graph: the manifest's `graph`
    ///   - vocabSize: number of token ids
    public init(path: String, graph: JsonFields, vocabSize: Int) throws {
        let inputs = try graph.list("inputs").map { try $0.fields(where: "inputs") }
        let past = try inputs.filter { try $0.text("name").hasPrefix("past_key_values.") }
        guard let shape = try past.first?.list("shape").map({ $0.asNumber.flatMap { Int($0.text) } }),
            shape.count == 4, let heads = shape[1], let headDim = shape[3]
        else {
            throw BundleError("the graph has no caches", hint: "")
        }
        api = try OnnxApi()
        session = try api.session(path: path)
        layers = past.count / 2
        self.heads = heads
        self.headDim = headDim
        self.vocabSize = vocabSize
        maxContext = try graph.int("max_context")
        mask = .allocate(capacity: maxContext)
        mask.initialize(repeating: 1)
        logits = .allocate(capacity: vocabSize)
        logits.initialize(repeating: 0)
    }

    deinit {
        api.functions.ReleaseSession(session)
        for cache in caches { cache.deallocate() }
        mask.deallocate()
        logits.deallocate()
    }

    public func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: written)
        written = position
        let total = position + ids.count
        if total > slots { reserve(total) }
        let numbers = UnsafeMutableBufferPointer<Int64>.allocate(capacity: ids.count)
        defer { numbers.deallocate() }
        _ = numbers.initialize(from: ids.map(Int64.init))
        var inputs = [
            ("input_ids", try int64(numbers)),
            ("attention_mask", try int64(UnsafeMutableBufferPointer(rebasing: mask[..<total]))),
        ]
        var outputs = [("logits", try float(logits, shape: [1, 1, Int64(vocabSize)]))]
        for (index, cache) in caches.enumerated() {
            let name = "\(index / 2).\(index % 2 == 0 ? "key" : "value")"
            let tensor = try float(cache, shape: [1, Int64(heads), Int64(slots), Int64(headDim)])
            inputs.append(("past_key_values.\(name)", tensor))
            outputs.append(("present.\(name)", tensor))
        }
        defer { Set((inputs + outputs).map(\.1)).forEach(api.functions.ReleaseValue) }
        try api.run(session, inputs: inputs, outputs: outputs)
        written = total
        return UnsafeBufferPointer(logits)
    }

    /// Double the number of slots until so many positions fit, and keep what the caches hold.
    private func reserve(_ total: Int) {
        var wanted = max(slots, Self.firstSlots)
        while wanted < total { wanted *= 2 }
        wanted = min(wanted, maxContext)
        let old = caches
        caches = (0..<2 * layers).map { index in
            let cache = UnsafeMutableBufferPointer<Float>.allocate(capacity: heads * wanted * headDim)
            cache.initialize(repeating: 0)
            if index < old.count {
                for head in 0..<heads {
                    let rows = old[index][head * slots * headDim..<(head + 1) * slots * headDim]
                    _ = UnsafeMutableBufferPointer(rebasing: cache[(head * wanted * headDim)...])
                        .update(fromContentsOf: rows)
                }
            }
            return cache
        }
        for cache in old { cache.deallocate() }
        slots = wanted
    }

    private func int64(_ numbers: UnsafeMutableBufferPointer<Int64>) throws -> OpaquePointer {
        try api.tensor(
            numbers, shape: [1, Int64(numbers.count)], type: ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64)
    }

    private func float(
        _ numbers: UnsafeMutableBufferPointer<Float>, shape: [Int64]
    ) throws -> OpaquePointer {
        try api.tensor(numbers, shape: shape, type: ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
    }
}
