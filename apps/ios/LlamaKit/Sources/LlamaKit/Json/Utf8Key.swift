/// A text that is the same as another only if its UTF-8 bytes are; as a key of dictionaries.
///
/// A Swift `String` equals every other spelling of what it looks like: `é` as one scalar and as two. Keys of
/// JSON, pieces of a vocabulary and names of tokens are other texts then.
public struct Utf8Key: Hashable, Sendable, ExpressibleByStringLiteral {
    /// The text.
    public let text: String

    /// Make a key of a text.
    public init(_ text: String) {
        self.text = text
    }

    public init(stringLiteral text: String) {
        self.text = text
    }

    public static func == (left: Utf8Key, right: Utf8Key) -> Bool {
        sameBytes(left.text, right.text)
    }

    public func hash(into hasher: inout Hasher) {
        let hashed: Void? = text.utf8.withContiguousStorageIfAvailable { bytes in
            hasher.combine(bytes: UnsafeRawBufferPointer(bytes))
        }
        if hashed == nil {
            // A string that came from Objective-C and is not UTF-8 inside; the same bytes, so the same hash.
            Array(text.utf8).withUnsafeBytes { hasher.combine(bytes: $0) }
        }
    }
}

/// Return whether two texts have the same UTF-8 bytes, which `==` does not ask.
public func sameBytes(_ left: String, _ right: String) -> Bool {
    left.utf8.elementsEqual(right.utf8)
}
