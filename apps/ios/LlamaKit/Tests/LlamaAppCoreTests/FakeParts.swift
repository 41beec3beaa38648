import Foundation
import Synchronization
import Testing

@testable import LlamaAppCore
@testable import LlamaKit

/// Engines whose models write a fixed answer, letter by letter.
final class FakeEngines: Engines {
    let targets = ["coreml"]
    private let state: Mutex<State>

    struct State {
        var answer = "Yes. It is."
        var fault: EngineError?
        var steps = 0
        var opened = 0
        var living = 0
        var forgotten: [String] = []
        var failAtStep = Int.max
        var stepSeconds = 0.0
    }

    init() { state = Mutex(State()) }

    var now: State { state.withLock { $0 } }

    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }

    func prepare(_ bundle: ModelBundle, contextTokens: Int) async throws -> EngineOpener {
        if let fault = now.fault { throw fault }
        return {
            self.change { $0.opened += 1 }
            return FakeModel(self, contextTokens)
        }
    }

    func openTokenizer(_ folder: URL) throws -> any Tokenizer { ByteTokenizer() }

    func forget(_ folder: URL) { change { $0.forgotten.append(folder.lastPathComponent) } }

    func runtime(of target: String) -> String { "fake 1" }
}

/// After the token that asks for an answer it writes the engines' answer, and the token that ends it.
final class FakeModel: StepModel {
    static let vocab = 258
    static let ask: Int32 = 256
    static let end: Int32 = 257

    let vocabSize = FakeModel.vocab
    let maxContext: Int
    private let engines: FakeEngines
    private let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: FakeModel.vocab)
    private var ids: [Int32] = []

    init(_ engines: FakeEngines, _ maxContext: Int) {
        self.engines = engines
        self.maxContext = maxContext
        engines.change { $0.living += 1 }
    }

    deinit {
        logits.deallocate()
        engines.change { $0.living -= 1 }
    }

    func step(_ new: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(new, at: position, held: ids.count)
        engines.change { $0.steps += 1 }
        let now = engines.now
        if now.stepSeconds > 0 { Thread.sleep(forTimeInterval: now.stepSeconds) }
        if now.steps >= now.failAtStep { throw EngineError("the runtime failed", hint: "Load it again.") }
        ids = ids.prefix(position) + new
        let written = ids.reversed().prefix { $0 != Self.ask }.count
        let answer = Array(now.answer.utf8)
        let next = written < answer.count ? Int(answer[written]) : Int(Self.end)
        for id in 0..<Self.vocab { logits[id] = id == next ? 50 : 0 }
        return UnsafeBufferPointer(logits)
    }
}

/// A tokenizer whose ids are UTF-8's bytes, and two special tokens after them.
final class ByteTokenizer: Tokenizer {
    let vocabSize = FakeModel.vocab
    let specialTokens: [Utf8Key: Int32] = [:]
    let prefixIds: [Int32] = []

    func encode(_ text: String, continues: Bool) -> [Int32] { text.utf8.map { Int32($0) } }
    func tokenName(_ id: Int32) -> String? { nil }
    func decode(_ ids: [Int32]) throws -> String {
        String(decoding: ids.map { UInt8(truncatingIfNeeded: $0) }, as: UTF8.self)
    }
    func streamDecoder(continues: Bool) -> any StreamDecoder { ByteDecoder() }
}

private final class ByteDecoder: StreamDecoder {
    func push(_ id: Int32) -> String { String(decoding: [UInt8(truncatingIfNeeded: id)], as: UTF8.self) }
    func flush() -> String { "" }
}

final class FakeDevice: Device {
    let name = "Fake 1"
    let facts: KeyValuePairs = ["model": "Fake 1"]
    let totalBytes: Int64 = 8 << 30
    private let available: Mutex<Int64> = Mutex(4 << 30)

    func availableBytes() -> Int64 { available.withLock { $0 } }
    func setAvailable(_ bytes: Int64) { available.withLock { $0 = bytes } }
    func appMemoryBytes() -> Int64? { 123 }
    func thermal() -> String? { "fair" }
}

final class FakeTokens: TokenStore {
    private let kept = Mutex<[String: String]>([:])

    func token(for host: String) -> String? { kept.withLock { $0[host] } }
    func keep(_ token: String?, for host: String) { kept.withLock { $0[host] = token } }
}

/// A bundle as an export writes it, with a file that stands for the artifact.
func writeBundle(
    _ folder: URL, chats: Bool = true, target: String = "coreml", residentBytes: Int = 1000,
    maxContext: Int = 512
) throws {
    let files = FileManager.default
    try files.createDirectory(at: folder, withIntermediateDirectories: true)
    let artifact = Array("artifact of \(folder.lastPathComponent)".utf8)
    try Data(artifact).write(to: folder.appendingPathComponent("model.bin"))
    let turn = { (letter: String) in "{\"prefix\": [\"\(letter)\"], \"suffix\": [\"\\n\"]}" }
    let turns = """
        {"begin": [], "no_system": [], "system": \(turn("s")), "user": \(turn("u")),
         "assistant": {"prefix": [256], "suffix": [257]}, "answer": [256], "trim": [],
         "thoughts_end": null}
        """
    let chat = chats ? "{\"reason\": null, \"turns\": \(turns)}" : "{\"reason\": \"it is a base model\"}"
    let manifest = """
        {"format_version": 2, "target": "\(target)", "artifact": "model.bin",
         "model": {"name": "fake"}, "graph": {"max_context": \(maxContext), "all_logits": false},
         "quantization": {"recipe": "int4", "bits_per_weight": 5},
         "tokenizer": {"file": "model.bin", "vocab_size": 258, "stop_token_ids": [257]},
         "memory": {"resident_bytes": \(residentBytes), "kv_bytes_per_token": 1000000},
         "chat": \(chat),
         "files": {"model.bin": {"sha256": "\(Sha256.hex(of: artifact))", "size_bytes": \(artifact.count)}},
         "created_with": {"llama-export": "0.1.0"}}
        """
    try Data(manifest.utf8).write(to: folder.appendingPathComponent("manifest.json"))
}

/// An app over fakes, in a folder of its own.
@MainActor
final class FakeApp {
    let engines = FakeEngines()
    let device = FakeDevice()
    let tokens = FakeTokens()
    let folder: URL
    let suite: String
    private(set) var parts: AppParts

    init(demo: Bool = false) throws {
        suite = "llama-app-\(UUID().uuidString)"
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(suite)
        try FileManager.default.createDirectory(at: shared(folder), withIntermediateDirectories: true)
        if demo { try writeBundle(folder.appendingPathComponent("demo")) }
        parts = Self.make(folder, suite, engines, device, tokens)
    }

    deinit {
        try? FileManager.default.removeItem(at: folder)
        UserDefaults.standard.removePersistentDomain(forName: suite)
    }

    var session: Session { parts.session }
    var host: ModelHost { parts.host }

    /// Begin again, as after the end of the process.
    func restart() async {
        await parts.conversations.read()
        parts = Self.make(folder, suite, engines, device, tokens)
        await parts.begin()
    }

    /// Put a bundle where Finder would.
    @discardableResult
    func push(_ name: String, chats: Bool = true, target: String = "coreml", residentBytes: Int = 1000)
        throws -> ModelBundle
    {
        let place = shared(folder).appendingPathComponent(name)
        try writeBundle(place, chats: chats, target: target, residentBytes: residentBytes)
        return try ModelBundle.open(place)
    }

    /// Load a model that chats.
    func loaded() async throws {
        await parts.askToLoad(try push("one"))
        try #require(host.state.isReady)
    }

    /// Wait until something holds; false: it never does.
    func until(_ holds: () -> Bool) async -> Bool {
        for _ in 0..<2000 {
            if holds() { return true }
            try? await Task.sleep(for: .milliseconds(5))
        }
        return false
    }

    /// Wait for the end of an answer.
    func answered() async -> Bool { await until { session.pending == nil } }

    private static func make(
        _ folder: URL, _ suite: String, _ engines: FakeEngines, _ device: FakeDevice, _ tokens: FakeTokens
    ) -> AppParts {
        AppParts(
            AppPlaces(
                own: folder.appendingPathComponent("own"), shared: shared(folder),
                demo: folder.appendingPathComponent("demo")),
            engines: engines, device: device, tokens: tokens,
            stored: UserDefaults(suiteName: suite) ?? .standard)
    }
}

private func shared(_ folder: URL) -> URL { folder.appendingPathComponent("shared") }
