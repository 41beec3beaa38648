/// Merges the tokens of a word, the lowest rank first and the leftmost of equal ones.
///
/// A heap holds what may be merged, so a word of n tokens costs n log n. One thread uses it at a
/// time; it keeps its arrays from word to word.
final class Merger {
    private let table: MergeTable
    private var places: [Place] = []
    private var heap = RankHeap()

    /// What is known of a token of the word.
    private struct Place {
        var previous: Int32
        var next: Int32
        /// What it becomes with its right neighbour; a rank below 0 stands for nothing.
        var rank: Int32
        var result: Int32
    }

    init(_ table: MergeTable) {
        self.table = table
    }

    /// Merge what can be merged, in place.
    ///
    /// - Parameter tokens: ids; what is left of them is all there is afterwards
    func merge(_ tokens: inout [Int32]) {
        let count = tokens.count
        if count < 2 { return }
        while places.count < count {
            places.append(Place(previous: 0, next: 0, rank: -1, result: 0))
        }
        let left = tokens.withUnsafeMutableBufferPointer { tokens in
            places.withUnsafeMutableBufferPointer { places in
                merge(tokens, places)
                return closeGaps(tokens, places)
            }
        }
        tokens.removeLast(count - left)
    }

    private func merge(
        _ tokens: UnsafeMutableBufferPointer<Int32>, _ places: UnsafeMutableBufferPointer<Place>
    ) {
        let count = tokens.count
        for at in 0..<count {
            places[at] = Place(previous: Int32(at) - 1, next: Int32(at) + 1, rank: -1, result: 0)
            if at + 1 < count { look(at, tokens, places) }
        }
        while let (rank, at) = heap.pop() {
            // Another merge took a part of it away, or gave it another neighbour.
            if places[at].rank != rank { continue }
            let taken = Int(places[at].next)
            tokens[at] = places[at].result
            places[at].rank = -1
            places[at].next = places[taken].next
            places[taken].rank = -1
            let next = Int(places[at].next)
            if next < count {
                places[next].previous = Int32(at)
                look(at, tokens, places)
            }
            let previous = Int(places[at].previous)
            if previous >= 0 { look(previous, tokens, places) }
        }
    }

    @inline(__always)
    private func look(
        _ at: Int, _ tokens: UnsafeMutableBufferPointer<Int32>,
        _ places: UnsafeMutableBufferPointer<Place>
    ) {
        guard let merge = table.find(tokens[at], tokens[Int(places[at].next)]) else {
            places[at].rank = -1
            return
        }
        places[at].rank = merge.rank
        places[at].result = merge.result
        heap.push(rank: merge.rank, at: at)
    }

    private func closeGaps(
        _ tokens: UnsafeMutableBufferPointer<Int32>, _ places: UnsafeMutableBufferPointer<Place>
    ) -> Int {
        var kept = 0
        var at = 0
        while at < tokens.count {
            tokens[kept] = tokens[at]
            kept += 1
            at = Int(places[at].next)
        }
        return kept
    }
}

/// A heap of ranks and places: the lowest rank on top, and of equal ones the leftmost place.
private struct RankHeap {
    private var items: [UInt64] = []

    mutating func push(rank: Int32, at place: Int) {
        let item = UInt64(rank) << 32 | UInt64(place)
        items.append(item)
        var at = items.count - 1
        items.withUnsafeMutableBufferPointer { items in
            while at > 0 {
                let parent = (at - 1) / 2
                if items[parent] <= item { break }
                items[at] = items[parent]
                at = parent
            }
            items[at] = item
        }
    }

    mutating func pop() -> (rank: Int32, at: Int)? {
        guard let item = items.popLast() else { return nil }
        guard let smallest = items.first else { return Self.parts(item) }
        items.withUnsafeMutableBufferPointer { items in
            var at = 0
            while true {
                var child = 2 * at + 1
                if child >= items.count { break }
                if child + 1 < items.count && items[child + 1] < items[child] { child += 1 }
                if items[child] >= item { break }
                items[at] = items[child]
                at = child
            }
            items[at] = item
        }
        return Self.parts(smallest)
    }

    private static func parts(_ item: UInt64) -> (Int32, Int) {
        (Int32(truncatingIfNeeded: item >> 32), Int(item & 0xFFFF_FFFF))
    }
}
