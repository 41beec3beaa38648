/// Memory that is written while it is made and only read afterwards, without the checks of an array.
///
/// Whoever reads an index knows that it is inside. Threads may share it, because nobody writes.
final class Frozen<Element: BitwiseCopyable & Sendable>: @unchecked Sendable {
    /// The elements, as long as this object lives.
    let items: UnsafeBufferPointer<Element>

    init(_ elements: [Element]) {
        let copy = UnsafeMutableBufferPointer<Element>.allocate(capacity: elements.count)
        _ = copy.initialize(fromContentsOf: elements)
        items = UnsafeBufferPointer(copy)
    }

    deinit {
        items.deallocate()
    }

    @inline(__always)
    subscript(index: Int) -> Element { items[index] }
}
