// What Examples/StockLanguageModel.swift uses of swift-transformers 1.3's module Generation; see README.md.
public struct GenerationConfig {
    public var maxLength = 20
    public var maxNewTokens: Int
    public var doSample = false
    public var temperature: Float = 1
    public var topK: Int?
    public var topP: Float = 1

    public init(maxNewTokens: Int) {
        self.maxNewTokens = maxNewTokens
    }
}

public typealias PredictionStringCallback = (String) -> Void
