import Foundation
import Testing

@testable import LlamaKit

// The example of apps/ios/README.md, but for what loads the artifact.

/// Answers questions with the bundle in a folder.
@MainActor
final class Assistant {
    private(set) var answer = ""
    private(set) var tokensPerS = 0.0
    private var session: ChatSession?

    func load(_ folder: URL, engine: @Sendable (ModelBundle) throws -> any StepModel) async throws {
        let bundle = try ModelBundle.open(folder)
        session = try await ChatSession(ChatModel(bundle), system: "Be brief.") { try engine(bundle) }
    }

    func ask(_ question: String) async throws {
        answer = ""
        guard let session else { return }
        for try await piece in session.send(question) {
            switch piece {
            case .reading(let done, let total): print("\(done) of \(total) tokens are read")
            case .text(let text): answer += text
            case .end(let stats): tokensPerS = stats.decodeTokensPerS
            }
        }
    }

    func stop() { session?.stop() }
}

/// A model that writes one token after the other, and then stops.
private final class Reciting: StepModel {
    let vocabSize: Int
    let maxContext: Int
    private let ids: [Int32]
    private let logits: UnsafeMutableBufferPointer<Float>
    private var told = 0

    init(_ ids: [Int32], _ manifest: Manifest) {
        self.ids = ids
        vocabSize = manifest.vocabSize
        maxContext = manifest.maxContext
        logits = .allocate(capacity: vocabSize)
    }

    deinit { logits.deallocate() }

    func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        logits.initialize(repeating: 0)
        logits[Int(self.ids[told % self.ids.count])] = 100
        told += 1
        return UnsafeBufferPointer(logits)
    }
}

@Suite("The example of the README")
struct ExampleTests {
    private static let demo = "export/llama_export/demo"
    private static let endOfTurn: Int32 = 3849

    /// A bundle with the demo's tokenizer, the form of Llama 3, and wishes of its own.
    private func bundle(_ folder: URL, _ settings: String = #"{"temperature": 0.5, "top_k": 3}"#) throws {
        let tokenizer = try stored(repository.appending(path: "\(Self.demo)/tokenizer.model"))
        let files: TestFiles = [
            ("model.onnx", [1]), ("tokenizer.model", tokenizer),
            ("generation_config.json", Array(settings.utf8)),
        ]
        var chat: Json?
        try Vectors("chat.json", format: 2).each("forms") {
            if try $0.text("name") == "llama 3" { chat = .object(try $0.fields("chat").json) }
        }
        let manifest = testManifest(
            files,
            [
                ("chat", chat),
                (
                    "tokenizer",
                    .object([
                        "file": .text("tokenizer.model"), "vocab_size": number(4096),
                        "stop_token_ids": .array([.number(JsonNumber(Self.endOfTurn))]),
                    ])
                ),
            ])
        try writeFiles([(manifestName, manifest.writeBytes())] + files, to: folder)
    }

    @Test @MainActor func answers() async throws {
        let folder = try TestFolder()
        try bundle(folder.url)
        let words = try ChatModel(ModelBundle.open(folder.url)).tokenizer.encode("Hello you")
        let assistant = Assistant()
        try await assistant.load(folder.url) { Reciting(words + [Self.endOfTurn], $0.manifest) }
        try await assistant.ask("Hi")
        #expect(assistant.answer == "Hello you")
        #expect(assistant.tokensPerS > 0)
        assistant.stop()
    }

    @Test func drawsAsTheBundleAsks() async throws {
        let folder = try TestFolder()
        try bundle(folder.url)
        let model = try ChatModel(ModelBundle.open(folder.url))
        #expect(try model.sampling == Sampling(temperature: 0.5, topK: 3))
        let seeded = ChatModel(
            tokenizer: LetterTokenizer(["begin", "end"]), format: shortForm, stopIds: [],
            sampling: try Sampling(temperature: 1, seed: 7))
        let session = try await ChatSession(seeded) { Failing(600) }
        for try await _ in session.send("a") {}
        #expect(await session.lastStats?.seed == 7)
        for try await _ in session.regenerate() {}
        #expect(await session.lastStats?.seed == 8)
        for try await _ in session.edit(0, "b") {}
        #expect(await session.lastStats?.seed == 9)
        for try await _ in session.write(after: "b") {}
        #expect(await session.lastStats?.seed == 7)
        #expect(await session.lastStats?.newTokens == 256)
    }

    @Test func settingsThatAreNoneAreRefusedOrPassedOver() throws {
        let folder = try TestFolder()
        try bundle(folder.url, "[]")
        #expect(try ChatModel(ModelBundle.open(folder.url)).sampling == .defaults)
        try bundle(folder.url, "{")
        let broken = try ModelBundle.open(folder.url)
        #expect(throws: BadInput.self) { try ChatModel(broken) }
        try bundle(folder.url, String(repeating: " ", count: 1 << 20) + "{}")
        let large = try ModelBundle.open(folder.url)
        #expect(
            try refusal { _ = try ChatModel(large) }.message
                == "generation_config.json is larger than 1048576 bytes")
        try FileManager.default.removeItem(at: folder.url.at("generation_config.json"))
        #expect(try ChatModel(large).sampling == .defaults)
    }
}
