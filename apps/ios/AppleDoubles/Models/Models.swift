// What Examples/StockLanguageModel.swift uses of swift-transformers 1.3's module Models; see README.md.
import CoreML
import Foundation
import Generation
import Tokenizers

public class LanguageModel {
    public let maxContextLength = 0

    public static func loadCompiled(
        url: URL, computeUnits: MLComputeUnits = .cpuAndGPU, tokenizer: (any Tokenizer)? = nil
    ) throws -> LanguageModel { LanguageModel() }

    public var defaultGenerationConfig: GenerationConfig { GenerationConfig(maxNewTokens: 0) }

    @discardableResult
    public func generate(
        config: GenerationConfig, prompt: String, callback: PredictionStringCallback? = nil
    ) async throws -> String { "" }
}
