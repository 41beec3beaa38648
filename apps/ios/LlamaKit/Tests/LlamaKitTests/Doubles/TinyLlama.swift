import Foundation

@testable import LlamaKit

/// Ways in which an engine goes wrong.
enum Fault: CaseIterable {
    /// Tokens after the first call stand a position too far.
    case positionOffByOne

    /// A call sees one row that it should have forgotten, or that nobody wrote.
    case staleRow

    /// Both heads' results change places.
    case swappedHeads

    /// Scores are multiplied by another scale.
    case wrongScale

    /// Logits are NaN after some calls.
    case notFinite
}

private let headSize = 8
private let size = 2 * headSize

/// One layer of attention with two heads, rotary positions and a cache, over random weights.
final class TinyLlama: StepModel {
    let vocabSize = 64
    let maxContext: Int
    private let fault: Fault?
    private let noise: Float
    private let swapsBest: Bool
    private let table = weights(1, 64)
    private let toQuery = weights(2, size)
    private let toKey = weights(3, size)
    private let toValue = weights(4, size)
    private let toHidden = weights(5, size)
    private var keys = [[Double]](repeating: [Double](repeating: 0, count: size), count: 129)
    private var values = [[Double]](repeating: [Double](repeating: 0, count: size), count: 129)
    private let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: 64)
    private var held = 0
    private var calls: UInt32 = 0

    /// - Parameters:
    ///   - fault: what it does wrong; nil: nothing
    ///   - noise: largest difference of a logit, as another processor's arithmetic has it
    ///   - swapsBest: whether the two likeliest tokens change places
    init(_ fault: Fault? = nil, noise: Float = 0, swapsBest: Bool = false, maxContext: Int = 128) {
        self.fault = fault
        self.noise = noise
        self.swapsBest = swapsBest
        self.maxContext = maxContext
        logits.initialize(repeating: 0)
    }

    deinit { logits.deallocate() }

    var interrupt: (@Sendable () -> Void)? { nil }

    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: held)
        calls += 1
        let shift = fault == .positionOffByOne && position > 0 ? 1 : 0
        for (offset, id) in ids.enumerated() {
            keys[position + offset] = rotated(product(toKey, table[Int(id)]), position + offset + shift)
            values[position + offset] = product(toValue, table[Int(id)])
        }
        held = position + ids.count
        let last = table[Int(ids[ids.count - 1])]
        let query = rotated(product(toQuery, last), held - 1 + shift)
        let hidden = product(toHidden, attention(query, held + (fault == .staleRow ? 1 : 0)))
        for id in 0..<vocabSize {
            var sum = 0.0
            for at in 0..<size { sum += table[id][at] * (last[at] + 3 * hidden[at]) }
            let off = Float(mix(UInt32(id), calls) >> 8) / Float(1 << 23) - 1
            logits[id] = Float(2.5 * sum) + noise * off
        }
        if fault == .notFinite && position > 70 { logits[5] = .nan }
        if swapsBest {
            let order = logits.indices.sorted { logits[$0] > logits[$1] }
            logits.swapAt(order[0], order[1])
        }
        return UnsafeBufferPointer(logits)
    }

    private func attention(_ query: [Double], _ rows: Int) -> [Double] {
        var result = [Double](repeating: 0, count: size)
        let scale = (fault == .wrongScale ? 1.5 : 1) / Double(headSize).squareRoot()
        for from in [0, headSize] {
            let part = from..<from + headSize
            let weights: [Double] = (0..<rows).map { row in
                let score: Double = part.reduce(0) { sum, at in sum + query[at] * keys[row][at] }
                return exp(scale * score)
            }
            let into = fault == .swappedHeads ? headSize - from : from
            let total = weights.reduce(0, +)
            for row in 0..<rows {
                for at in 0..<headSize { result[into + at] += weights[row] / total * values[row][from + at] }
            }
        }
        return result
    }

    private func rotated(_ vector: [Double], _ position: Int) -> [Double] {
        var result = vector
        for from in [0, headSize] {
            for pair in 0..<headSize / 2 {
                let angle = Double(position) * pow(100, -2 * Double(pair) / Double(headSize))
                let (one, other) = (from + pair, from + pair + headSize / 2)
                result[one] = vector[one] * cos(angle) - vector[other] * sin(angle)
                result[other] = vector[other] * cos(angle) + vector[one] * sin(angle)
            }
        }
        return result
    }

    private func product(_ matrix: [[Double]], _ vector: [Double]) -> [Double] {
        matrix.map { row in vector.indices.reduce(0.0) { $0 + row[$1] * vector[$1] } }
    }
}

private func weights(_ number: UInt32, _ rows: Int) -> [[Double]] {
    (0..<rows).map { row -> [Double] in
        let seed = mix(number, UInt32(row))
        return (0..<size).map { column -> Double in
            let bits: UInt32 = mix(seed, UInt32(column)) >> 8
            return Double(bits) / 8_388_608 - 1
        }
    }
}
