/// Copy the first positions of a cache that holds more, for packages whose caches go in and out.
///
/// - Parameters:
///   - cache: float16 numbers by their bits, `[L, 1, K, held, D]`, first axis first
///   - layout: the package's sizes L, K and D
///   - held: number of positions that the cache has, its empty first one included
///   - kept: number of positions to keep, the empty first one included; at most `held`
///   - rows: room for `[L, 1, K, kept, D]`
public func copyRows(
    of cache: UnsafeBufferPointer<UInt16>, layout: CoreMLLayout, held: Int, kept: Int,
    into rows: UnsafeMutableBufferPointer<UInt16>
) {
    let blocks = layout.layers * layout.heads
    precondition(
        kept <= held && cache.count == blocks * held * layout.headDim
            && rows.count == blocks * kept * layout.headDim)
    for block in 0..<blocks {
        let source = block * held * layout.headDim
        let destination = block * kept * layout.headDim
        for index in 0..<kept * layout.headDim {
            rows[destination + index] = cache[source + index]
        }
    }
}
