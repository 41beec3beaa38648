// What Examples/StockLanguageModel.swift uses of swift-transformers 1.3's module Tokenizers; see README.md.
import Foundation

public protocol Tokenizer: Sendable {
    func encode(text: String) -> [Int]
    func decode(tokens: [Int]) -> String
}

public enum AutoTokenizer {
    public static func from(modelFolder: URL) async throws -> any Tokenizer { Nothing() }
}

private struct Nothing: Tokenizer {
    func encode(text: String) -> [Int] { [] }
    func decode(tokens: [Int]) -> String { "" }
}
