import ExecuTorch
import Foundation
import LlamaKit

/// A `.pte` in ExecuTorch, with its KV cache inside the program.
///
/// The program takes any position, so a rewind is a smaller one. ExecuTorch cannot end a call early; prompts
/// come in pieces, between which whoever reads them looks for a stop.
public final class ExecuTorchStepModel: StepModel {
    public let vocabSize: Int
    public let maxContext: Int

    private static let pieceTokens = 128
    private let module: Module
    private let logits: UnsafeMutableBufferPointer<Float>
    private var written = 0

    /// Load a program, on the executor that will step it.
    ///
    /// - Parameters:
    ///   - model: path of model.pte
    ///   - vocabSize: number of token ids, as the manifest has it
    ///   - maxContext: largest number of positions, at most the manifest's
    /// - Throws: ``BundleError`` if the file is damaged or not what the manifest says; ``EngineError`` if
    ///   ExecuTorch cannot load it
    public init(_ model: URL, vocabSize: Int, maxContext: Int) throws {
        // Mapped: the default mode reads the whole file into memory.
        let module = Module(filePath: model.path, loadMode: .mmap)
        try inWords("load \(model.lastPathComponent)") {
            try module.load("forward")
            let found = try number("get_vocab_size", of: module)
            let slots = try number("get_max_context_len", of: module)
            if found != vocabSize || slots < maxContext {
                throw BundleError(
                    "\(model.lastPathComponent) has \(found) tokens and room for \(slots) positions, "
                        + "expected \(vocabSize) and \(maxContext)",
                    hint: "Get the whole bundle again: its files do not belong together.")
            }
        }
        self.module = module
        self.vocabSize = vocabSize
        self.maxContext = maxContext
        logits = .allocate(capacity: vocabSize)
    }

    deinit {
        logits.deallocate()
    }

    public func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: written)
        written = position
        var rest = ids[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Self.pieceTokens).map(Int64.init)
            try inWords("run the model over \(piece.count) tokens") { try run(piece) }
            written += piece.count
            rest = rest.dropFirst(piece.count)
        }
        return UnsafeBufferPointer(logits)
    }

    private func run(_ piece: [Int64]) throws {
        let tokens = Tensor<Int64>(piece, shape: [1, piece.count])
        let start = Tensor<Int64>([Int64(written)], shape: [1])
        guard let result: Tensor<Float> = try module.forward([tokens, start]).first?.tensor(),
            result.shape.last == vocabSize, result.count == vocabSize
        else {
            throw BundleError(
                "the program did not give one row of \(vocabSize) logits",
                hint:
                    "Export the model again with --target executorch, without --all-logits and --kv-cache io."
            )
        }
        // The result is memory of the runtime's, which the next call writes over.
        try result.withUnsafeBytes { _ = logits.update(from: $0) }
    }
}

private func number(_ name: String, of module: Module) throws -> Int {
    guard let value = try module.execute(name, []).first else {
        throw BundleError("the program has no \(name)", hint: "Export the model again.")
    }
    return value.integer
}

private func inWords<T>(_ what: String, _ act: () throws -> T) throws -> T {
    do {
        return try act()
    } catch let error as any AppError {
        throw error
    } catch {
        throw executorchError(
            what, code: (error as NSError).code, message: error.localizedDescription)
    }
}
