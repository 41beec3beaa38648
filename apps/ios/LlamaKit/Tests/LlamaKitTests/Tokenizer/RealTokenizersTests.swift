import Foundation
import Testing

@testable import LlamaKit

private let fixtures = ProcessInfo.processInfo.environment["LLAMA_FIXTURES"].map {
    URL(fileURLWithPath: $0).appending(path: "tokenizers")
}

/// A megabyte of mixed text by real vocabularies, as tools/apps/tokenizer_fixtures.py hashed it.
@Suite("Real vocabularies", .enabled(if: fixtures != nil))
struct RealTokenizersTests {
    @Test func everyPartHasPythonsIdsAndText() throws {
        let fixtures = try #require(fixtures)
        let texts = try fields(fixtures.appending(path: "texts.json")).texts("texts")
        let names = try FileManager.default.contentsOfDirectory(atPath: fixtures.path).sorted().filter {
            !isFile(fixtures.appending(path: $0))
        }
        #expect(names.contains("demo"))
        for name in names {
            let own = fixtures.appending(path: name)
            try requireSame(fixtures, name, own, texts)
            let folder = FileManager.default.temporaryDirectory.appending(path: "real-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            // Without tokenizer.model the other file is read.
            for file in ["tokenizer.json", "tokenizer_config.json"] {
                try FileManager.default.copyItem(
                    at: own.appending(path: file), to: folder.appending(path: file))
            }
            try requireSame(fixtures, name, folder, texts)
        }
    }

    @Test func theTokenizerJsonOfAnExportIsKnownWithoutParsingItAndOneByteOfItCounts() throws {
        let folder = try #require(fixtures).appending(path: "demo")
        let tokens = try RankTokens(
            bytes(folder.appending(path: "tokenizer.model")), where: "tokenizer.model")
        var json = try bytes(folder.appending(path: "tokenizer.json"))
        #expect(Llama3Json.isMade(of: tokens, json))
        for at in stride(from: 0, to: json.count, by: 997) {
            json[at] &+= 1
            #expect(!Llama3Json.isMade(of: tokens, json), "byte \(at)")
            json[at] &-= 1
        }
        #expect(!Llama3Json.isMade(of: tokens, json + [10]))
        #expect(!Llama3Json.isMade(of: tokens, json.dropLast()))
    }

    private func requireSame(_ fixtures: URL, _ name: String, _ folder: URL, _ texts: [String]) throws {
        let expected = try fields(fixtures.appending(path: "\(name).json"))
        let tokenizer = try loadTokenizer(folder)
        #expect(try tokenizer.vocabSize == expected.int("vocab_size"))
        let hashes = try expected.texts("ids_sha256")
        #expect(hashes.count == texts.count)
        // SentencePiece's own letter for a blank comes back as a blank, for example.
        let changed = try expected.fields("changed").json
        for (index, text) in texts.enumerated() {
            let ids = tokenizer.encode(text)
            let bytes = ids.flatMap { id in (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * $0)) } }
            let hash = Sha256.hex(of: bytes)
            #expect(hash == hashes[index], "\(name), part \(index): \(text.prefix(80))")
            let back = changed["\(index)"] ?? .text(text)
            #expect(try Json.text(tokenizer.decode(ids)) == back, "\(name), part \(index)")
        }
    }

    private func fields(_ file: URL) throws -> JsonFields {
        let name = file.lastPathComponent
        return try parseJson(bytes(file), where: name).fields(where: name)
    }

    private func bytes(_ file: URL) throws -> [UInt8] { try [UInt8](Data(contentsOf: file)) }
}
