/// Meta's `tokenizer.model`: the bytes of each text token by its id, which is its rank.
///
/// Special tokens are not in the file; they follow the last rank.
struct RankTokens: Sendable {
    /// Ids by bytes, and bytes by id.
    let table: ByteTable

    /// Pairs of tokens that make a token, by the id of the result, then of the parts.
    let merges: [Merge]

    private static let mostTokens = 1 << 20
    private static let mostTokenBytes = 256
    private static let mostRankDigits = 9
    // Merges are found by cutting each token at each place; Llama 3's have 0.8 MB together.
    private static let mostBytes = 4 * 1024 * 1024

    /// Number of tokens.
    var count: Int { table.strings.count }

    /// Read the bytes of a `tokenizer.model`.
    ///
    /// - Throws: ``BundleError`` if it is damaged, or no vocabulary of a Llama 3
    init(_ data: [UInt8], where place: String) throws {
        func failure(_ reason: String) -> BundleError {
            BundleError("\(place)\(reason)", hint: getAnotherTokenizer)
        }
        var strings = ByteStrings(count: 0)
        var count = 0
        var sizeBytes = 0
        var at = 0
        while at < data.count {
            let end = data[at...].firstIndex(of: UInt8(ascii: "\n")) ?? data.count
            count += 1
            if count > Self.mostTokens { throw failure(" has more than \(Self.mostTokens) lines") }
            var line = data[at..<end]
            if line.last == UInt8(ascii: "\r") { line.removeLast() }
            guard let (token, rank) = Self.parse(line) else {
                let found = shown(String(decoding: line, as: UTF8.self))
                throw failure(", line \(count): expected `base64 rank`, found \(found)")
            }
            if rank >= Self.mostTokens { throw failure(", line \(count): the rank \(rank) is too large") }
            if token.isEmpty || token.count > Self.mostTokenBytes {
                let expected = "expected a token of 1 to \(Self.mostTokenBytes) bytes"
                throw failure(", line \(count): \(expected), found \(token.count)")
            }
            sizeBytes += token.count
            if sizeBytes > Self.mostBytes {
                throw failure(": its tokens have more than \(Self.mostBytes) bytes together")
            }
            if rank < strings.count && !strings[rank].isEmpty {
                throw failure(", line \(count): the rank \(rank) is given twice")
            }
            strings.put(token, at: rank)
            at = end + 1
        }
        if strings.count > count {
            throw failure(": the ranks of its \(count) tokens have a gap")
        }
        let table = ByteTable(strings)
        if let twice = (0..<count).first(where: { table.find(strings[$0]) != $0 }) {
            throw failure(": the token of rank \(twice) stands there twice")
        }
        let missing = (UInt8.min...UInt8.max).count { table.find([$0]) == nil }
        if missing > 0 { throw failure(": \(missing) of the 256 single bytes have no token") }
        self.table = table
        merges = Self.merges(of: table)
    }

    private static func parse(_ line: ArraySlice<UInt8>) -> (token: [UInt8], rank: Int)? {
        let parts = line.split(separator: UInt8(ascii: " "), maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, (1...mostRankDigits).contains(parts[1].count), parts[1].allSatisfy(isDigit),
            let token = Base64.decode(parts[0])
        else { return nil }
        return (token, parts[1].reduce(0) { 10 * $0 + Int($1 - UInt8(ascii: "0")) })
    }

    private static func merges(of table: ByteTable) -> [Merge] {
        var found: [Merge] = []
        found.reserveCapacity(3 * table.strings.count)
        var cuts: [(left: Int, right: Int)] = []
        for id in 0..<table.strings.count {
            let token = table.strings[id]
            cuts.removeAll(keepingCapacity: true)
            for cut in token.indices.dropFirst() {
                if let left = table.find(token[..<cut]), let right = table.find(token[cut...]) {
                    cuts.append((left, right))
                }
            }
            for (left, right) in cuts.sorted(by: <) {
                found.append(
                    Merge(left: Int32(left), right: Int32(right), rank: Int32(id), result: Int32(id)))
            }
        }
        return found
    }

    /// Return the tokenizer of a Llama 3 with these tokens.
    func tokenizer() -> BpeTokenizer {
        let names = llama3SpecialTokens
        let special = names.enumerated().map { (token: $1, id: Int32(count + $0)) }
        var added = AddedTokens(Vocabulary(special))
        added.add(names.map { AddedToken(name: $0, isSpecial: true) })
        var bytes = table.strings
        for (name, id) in special { bytes.put(name.utf8, at: Int(id)) }
        return BpeTokenizer(
            vocabSize: count + names.count,
            prefixIds: [Int32(count)],
            added: added,
            changes: [],
            sections: ByteLevelModel(
                splitters: [Llama3Splitter(classes: CharacterClasses.shared)],
                byteIds: (UInt8.min...UInt8.max).map { Int32(table.find([$0]) ?? -1) },
                merges: MergeTable(merges),
                words: table,
                unknown: Unknown(id: nil, fuses: false)),
            decoding: ByteDecoding(tokens: bytes))
    }
}

/// Names of Llama 3's special tokens, in the order of their ids; of Llama 3.1 and later.
let llama3SpecialTokens: [String] = {
    let named = [
        "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>",
        "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
    ]
    return named + (3..<256 - named.count + 3).map { "<|reserved_special_token_\($0)|>" }
}()
