/// A pair of neighbouring tokens that becomes one.
struct Merge: Sendable, BitwiseCopyable {
    let left: Int32
    let right: Int32
    /// When it is merged; the lowest is first.
    let rank: Int32
    /// The token that it becomes.
    let result: Int32
}

/// Which two neighbouring tokens become one, and in which order.
struct MergeTable: Sendable {
    private let slots: Frozen<Merge>
    private let mask: Int

    private static let empty = Merge(left: -1, right: -1, rank: 0, result: 0)

    /// Make a table; a pair that is given again counts as it was given last.
    init(_ merges: [Merge]) {
        let size = tableSize(merges.count)
        var slots = Array(repeating: Self.empty, count: size)
        for merge in merges {
            let slot = slots.withUnsafeBufferPointer {
                Self.slot(of: merge.left, merge.right, in: $0, mask: size - 1)
            }
            slots[slot] = merge
        }
        self.slots = Frozen(slots)
        mask = size - 1
    }

    /// Return what a pair becomes, or nil where it becomes nothing.
    @inline(__always)
    func find(_ left: Int32, _ right: Int32) -> Merge? {
        let found = slots[Self.slot(of: left, right, in: slots.items, mask: mask)]
        return found.left < 0 ? nil : found
    }

    /// Return where a pair stands, or the empty place where it would.
    @inline(__always)
    private static func slot(
        of left: Int32, _ right: Int32, in slots: UnsafeBufferPointer<Merge>, mask: Int
    ) -> Int {
        let key = UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
        let product = key &* 0x61C8_8646_80B5_83EB
        var slot = Int(truncatingIfNeeded: product ^ product >> 32) & mask
        while slots[slot].left >= 0 && (slots[slot].left != left || slots[slot].right != right) {
            slot = (slot + 1) & mask
        }
        return slot
    }
}

/// Return a power of two that leaves half of a table of that size empty.
func tableSize(_ entries: Int) -> Int {
    var size = 16
    while size < 2 * entries { size *= 2 }
    return size
}
