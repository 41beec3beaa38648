import CoreML
import Foundation
import Generation
import Models
import Tokenizers

/// Go on with a text by the stock loop of swift-transformers.
@main
struct StockLanguageModel {
    static func main() async throws {
        guard CommandLine.arguments.count == 3 else { return print("usage: stock BUNDLE TEXT") }
        let folder = URL(filePath: CommandLine.arguments[1], directoryHint: .isDirectory)
        let compiled = try await MLModel.compileModel(at: folder.appending(path: "model.mlpackage"))
        let tokenizer = try await AutoTokenizer.from(modelFolder: folder)
        let model = try LanguageModel.loadCompiled(
            url: compiled, computeUnits: .cpuAndGPU, tokenizer: tokenizer)
        var config = model.defaultGenerationConfig
        config.maxNewTokens = 64
        config.doSample = false
        let text = try await model.generate(config: config, prompt: CommandLine.arguments[2])
        print(text)
    }
}
