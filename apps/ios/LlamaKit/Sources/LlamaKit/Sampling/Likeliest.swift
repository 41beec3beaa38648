private let infinity = Int32(bitPattern: Float.infinity.bitPattern)

/// Return a whole number that is the larger the larger a float32 is.
func ordered(_ value: Float) -> Int32 {
    // Adding 0 makes -0 the same as 0.
    let bits = Int32(bitPattern: (value + 0).bitPattern)
    return bits ^ ((bits >> 31) & .max)
}

/// Return the id of the largest of logits `[V]`; of equal ones the lowest.
///
/// - Throws: ``EngineError`` if a logit is NaN or infinite, or none is finite
func soundLikeliest(_ logits: UnsafeBufferPointer<Float>) throws -> Int {
    // Of whole numbers the compiler looks for several at a time, and of others it may not.
    var largest = Int32.min
    var magnitude: Int32 = 0
    for id in 0..<logits.count {
        largest = max(largest, ordered(logits[id]))
        magnitude = max(magnitude, Int32(bitPattern: logits[id].bitPattern) & .max)
    }
    let isSound = magnitude <= infinity && largest < infinity && largest > ordered(-.infinity)
    if isSound, let id = logits.firstIndex(where: { ordered($0) == largest }) {
        return id
    }
    let wrong = logits.count { !($0 < .infinity) }
    throw EngineError(
        "the logits are not finite numbers: \(wrong) of \(logits.count) are NaN or infinite"
            + (wrong == 0 ? ", and none is finite" : ""),
        hint: "The bundle is damaged, or this phone computes it wrongly: verify it on this phone.")
}

private let leastExponent: Float = -87
private let log2OfE: Float = 1.442695
// ln(2) in two parts, of which the first has few digits: its products are exact.
private let coarseLn2: Float = 0.6933594
private let restOfLn2: Float = -0.00021219444
// Added to a number, it leaves its whole part in the lowest bits.
private let rounding: Float = 12_582_912

/// Return the exponential of a number that is not positive, to float32's last bits; below -87 it is 0.
///
/// Without a branch, so that a loop over it treats several numbers at a time.
func expOfNegative(_ x: Float) -> Float {
    let bounded = max(x, leastExponent)
    let shifted = bounded * log2OfE + rounding
    let doublings = shifted - rounding
    let t = (bounded - doublings * coarseLn2) - doublings * restOfLn2
    let end = t * (1.0 / 120 + t * (1.0 / 720 + t * (1.0 / 5040)))
    let series = 1 + t * (1 + t * (1.0 / 2 + t * (1.0 / 6 + t * (1.0 / 24 + end))))
    let power = Float(bitPattern: series.bitPattern &+ (shifted.bitPattern << 23))
    return x >= leastExponent ? power : 0
}
