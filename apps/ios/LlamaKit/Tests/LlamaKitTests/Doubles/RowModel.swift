@testable import LlamaKit

/// Return 32 bits that depend on all bits of two numbers, as tools/generation_vectors.py does.
func mix(_ one: UInt32, _ other: UInt32) -> UInt32 {
    var mixed = one ^ (other &* 0x9E37_79B1)
    mixed = (mixed ^ (mixed >> 16)) &* 0x85EB_CA6B
    mixed = (mixed ^ (mixed >> 13)) &* 0xC2B2_AE35
    return mixed ^ (mixed >> 16)
}

/// A model that is arithmetic: each row of its cache is made of a token and its position, and its logits of
/// all rows, so that a wrong position or a row left over changes what it writes.
class RowModel: StepModel {
    let vocabSize: Int
    let maxContext: Int

    /// Rows as they are, those that were forgotten too.
    private(set) var rows: [UInt32]

    /// Number of ids of each call.
    private(set) var calls: [Int] = []

    let buffer: UnsafeMutableBufferPointer<Float>
    private let steps: Float
    private var held = 0

    /// - Parameter steps: per unit of a logit; fewer make drawing flatter
    init(vocabSize: Int = 64, maxContext: Int = 64, steps: Float = 256) {
        self.vocabSize = vocabSize
        self.maxContext = maxContext
        self.steps = steps
        rows = Array(repeating: 0, count: maxContext)
        buffer = .allocate(capacity: vocabSize)
        buffer.initialize(repeating: 0)
    }

    deinit {
        buffer.deallocate()
    }

    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: held)
        calls.append(ids.count)
        for (offset, id) in ids.enumerated() {
            rows[position + offset] = row(id, position + offset)
        }
        held = position + ids.count
        fill(held)
        return UnsafeBufferPointer(buffer)
    }

    var interrupt: (@Sendable () -> Void)? { nil }

    /// Fill the buffer, which the next call fills anew.
    func fill(_ held: Int) {
        var state: UInt32 = 0
        for row in rows[..<held] { state = mix(state, row) }
        for id in 0..<vocabSize {
            buffer[id] = (Float(mix(state, UInt32(id)) >> 19) - 4096) / steps
        }
    }
}

/// Return the row of a token at a position.
func row(_ id: Int32, _ position: Int) -> UInt32 {
    mix(UInt32(bitPattern: id), UInt32(position))
}
