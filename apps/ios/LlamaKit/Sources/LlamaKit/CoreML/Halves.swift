/// Widen float16 numbers, given by their bits, to float32.
///
/// - Parameters:
///   - halves: bits of `n` float16 numbers
///   - floats: room for as many float32 numbers
public func widen(_ halves: UnsafeBufferPointer<UInt16>, into floats: UnsafeMutableBufferPointer<Float>) {
    precondition(halves.count == floats.count, "expected room for \(halves.count) numbers")
    for index in halves.indices {
        floats[index] = float(ofHalf: halves[index])
    }
}

/// Return a float16 number, given by its bits, as float32; Intel Macs have no type for it.
@inline(__always)
func float(ofHalf bits: UInt16) -> Float {
    #if arch(arm64)
        return Float(Float16(bitPattern: bits))
    #else
        return portableFloat(ofHalf: bits)
    #endif
}

/// Return a float16 number as float32 without the processor's help.
@inline(__always)
func portableFloat(ofHalf bits: UInt16) -> Float {
    let sign = UInt32(bits & 0x8000) << 16
    let rest = UInt32(bits & 0x7FFF) << 13
    // float32's exponent counts from another number; infinity and NaN stay what they are.
    if rest >= 0x0F80_0000 { return Float(bitPattern: sign | 0x7000_0000 | rest) }
    // A multiplication sets the exponent of subnormal numbers right as well.
    let magnitude = Float(bitPattern: rest) * Float(bitPattern: 0x7780_0000)
    return Float(bitPattern: sign | magnitude.bitPattern)
}
