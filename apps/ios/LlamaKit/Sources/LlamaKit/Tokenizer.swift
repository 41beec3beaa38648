/// Text to token ids and back, as the model was trained with them.
public protocol Tokenizer: Sendable {
    /// The largest id and one; ids between may mean nothing.
    var vocabSize: Int { get }

    /// Ids of the special tokens by their names, such as `<|eot_id|>`. Names are compared by their bytes.
    var specialTokens: [Utf8Key: Int32] { get }

    /// Ids that stand before every text, such as the one for the beginning of text; often one.
    var prefixIds: [Int32] { get }

    /// Encode text and nothing but text: a special token that a user typed is encoded letter by
    /// letter, and nothing is added. A Swift string is always sound Unicode, so nothing is refused.
    ///
    /// - Parameter continues: whether a special token or other text comes before. Some SentencePiece
    ///   vocabularies put a blank before a text at the very beginning and nowhere else
    func encode(_ text: String, continues: Bool) -> [Int32]

    /// Return the name of a special or added token, or nil where an id is a piece of text, or none.
    func tokenName(_ id: Int32) -> String?

    /// Decode ids; bytes that are no UTF-8 become U+FFFD, as in Python, and special tokens their names.
    ///
    /// - Throws: ``PromptError`` if an id is outside the vocabulary
    func decode(_ ids: [Int32]) throws -> String

    /// Begin to decode ids one after the other.
    ///
    /// - Parameter continues: whether other text comes before. SentencePiece puts a blank before a text,
    ///   which falls away at its very beginning and nowhere else
    func streamDecoder(continues: Bool) -> any StreamDecoder
}

extension Tokenizer {
    /// Encode text at the very beginning; see ``encode(_:continues:)``.
    public func encode(_ text: String) -> [Int32] { encode(text, continues: false) }
}

/// Decodes ids one by one, and holds an incomplete character back until its last byte comes.
public protocol StreamDecoder: AnyObject {
    /// Append an id and return the text that is complete now; often one word, sometimes none.
    ///
    /// - Throws: ``PromptError`` if the id is outside the vocabulary
    func push(_ id: Int32) throws -> String

    /// Return what was held back, with U+FFFD for what never came, and begin anew.
    func flush() -> String
}
