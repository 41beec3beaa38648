/// Random numbers of a seed, the same on every phone and in every version of the app: SplitMix64.
///
/// Neighbouring seeds give unrelated numbers, so a conversation may count its seed up.
public struct SeededRandom: Sendable {
    private var state: UInt64

    /// Begin the numbers of a seed.
    public init(seed: Int64) {
        state = UInt64(bitPattern: seed)
    }

    /// Return the next number from 0 to 1, without 1.
    public mutating func next() -> Double {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return Double((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53
    }
}
