/// A token that was added to a vocabulary, and which text becomes it.
struct AddedToken: Sendable, Equatable {
    /// Its text.
    let name: String
    /// Whether it is found only where no letter touches it.
    var singleWord = false
    /// Whether blanks before it belong to it.
    var takesBlanksBefore = false
    /// Whether blanks after it belong to it.
    var takesBlanksAfter = false
    /// Whether it is looked for in normalised text.
    var normalized = false
    /// Whether it is a control token, which typed text never becomes.
    var isSpecial = false
}

/// The tokens that were added to a vocabulary, with the ids that the library `tokenizers` gives them.
struct AddedTokens: Sendable {
    private let vocabulary: Vocabulary
    private var ids: [Utf8Key: Int32] = [:]
    private var places: [Int32: Int] = [:]
    private(set) var highestId: Int32 = -1

    /// Names of which text never becomes a token, whatever is said of them later.
    private(set) var specialNames: Set<Utf8Key> = []

    /// The tokens with their ids, in the order in which they were first added.
    private(set) var tokens: [(id: Int32, token: AddedToken)] = []

    /// Begin without added tokens.
    ///
    /// - Parameter vocabulary: the model's own tokens
    init(_ vocabulary: Vocabulary) {
        self.vocabulary = vocabulary
    }

    /// Return the token with an id, or nil where that is none that was added.
    subscript(id: Int32) -> AddedToken? { places[id].map { tokens[$0].token } }

    /// Add tokens at once; one that is known already counts as it was added last.
    ///
    /// The library numbers what the vocabulary has not, whatever id the file gives it: from behind all
    /// that it knew before this call, or from the vocabulary's number of tokens.
    mutating func add(_ added: [AddedToken]) {
        var next = max(Int32(vocabulary.count), highestId + 1)
        for token in added where token.isSpecial { specialNames.insert(Utf8Key(token.name)) }
        for token in added {
            let name = Utf8Key(token.name)
            if let id = ids[name], self[id] == token { continue }
            let known = ids[name] ?? vocabulary.id(of: token.name.utf8)
            let id = known ?? next
            if known == nil { next += 1 }
            highestId = max(highestId, id)
            ids[name] = id
            if let place = places[id] {
                tokens[place].token = token
            } else {
                places[id] = tokens.count
                tokens.append((id, token))
            }
        }
    }

    /// Return whether text never becomes a token.
    func isSpecial(_ token: AddedToken) -> Bool { specialNames.contains(Utf8Key(token.name)) }

    /// Return ids of the control tokens by name.
    func specialTokens() -> [Utf8Key: Int32] {
        var found: [Utf8Key: Int32] = [:]
        // Of two ids with one name the higher counts.
        for (id, token) in tokens.sorted(by: { $0.id < $1.id }) where token.isSpecial {
            found[Utf8Key(token.name)] = id
        }
        return found
    }
}
