/// Tokens of a model with their ids, as a tokenizer.json has them.
struct Vocabulary: Sendable {
    private let table: ByteTable
    private let ids: [Int32]

    /// Make a vocabulary of tokens, each of which is given once, and their ids.
    init(_ tokens: [(token: String, id: Int32)]) {
        var strings = ByteStrings(count: tokens.count)
        for (number, each) in tokens.enumerated() { strings.put(each.token.utf8, at: number) }
        table = ByteTable(strings)
        ids = tokens.map(\.id)
    }

    /// Number of tokens.
    var count: Int { ids.count }

    /// The highest id, or -1 where there is no token.
    var highestId: Int { Int(ids.max() ?? -1) }

    /// The bytes and the id of each token.
    var tokens: some Sequence<(token: ArraySlice<UInt8>, id: Int32)> {
        ids.indices.lazy.map { (table.strings[$0], ids[$0]) }
    }

    /// Return the id of a token, or nil where it is none.
    func id(of token: some Collection<UInt8>) -> Int32? {
        table.find(token).map { ids[$0] }
    }

    /// Return the id of a token, or nil where it is none.
    func id(of token: Utf8Text) -> Int32? {
        table.find(token).map { ids[$0] }
    }
}
