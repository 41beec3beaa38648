import Foundation

@testable import LlamaKit

/// A folder of a test's own, which is deleted with it.
final class TestFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory
            .appending(path: "llamakit-\(UUID().uuidString)", directoryHint: .isDirectory)
        try makeFolder(url)
    }

    deinit { deleteTree(url) }
}

/// Bytes that look random and are always the same.
func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 33)
    }
}

/// Numbers that look random and are always the same.
struct TestRandom {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed &+ 0x9e37_79b9_7f4a_7c15 }

    mutating func below(_ limit: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(limit))
    }
}

typealias TestFiles = [(path: String, content: [UInt8])]

let artifactBytes = 60_000

/// Files of a made-up bundle, without its manifest.
func testFiles(seed: UInt64 = 0) -> TestFiles {
    [
        ("config.json", Array("{}".utf8)),
        ("model.onnx", noise(artifactBytes, seed: seed)),
        ("empty", []),
        ("sub/tokenizer.json", noise(5000, seed: seed + 1)),
    ]
}

/// Return a number.
func number(_ value: Int) -> Json { .number(JsonNumber(value)) }

/// Return a manifest of files, with some of its keys replaced or, by nil, left out.
func testManifest(_ files: TestFiles, _ others: [(String, Json?)] = []) -> Json {
    let listed = files.map { file in
        let entry: JsonObject = [
            "sha256": .text(Sha256.hex(of: file.content)), "size_bytes": number(file.content.count),
        ]
        return (file.path, Json.object(entry))
    }
    let tokenizer: JsonObject = [
        "file": .text("sub/tokenizer.json"),
        "vocab_size": number(10),
        "stop_token_ids": .array([number(9)]),
    ]
    var all: JsonObject = [
        "format_version": number(2),
        "target": .text("onnx"),
        "artifact": .text("model.onnx"),
        "model": .object(["name": .text("test")]),
        "graph": .object(["max_context": number(128), "all_logits": .bool(false)]),
        "quantization": .object(["recipe": .text("int4"), "bits_per_weight": number(5)]),
        "tokenizer": .object(tokenizer),
        "files": .object(JsonObject(listed)),
        "created_with": .object(["llama-export": .text("0.1.0")]),
    ]
    for (key, value) in others { all[key] = value }
    return .object(all)
}

/// The files with their manifest in front.
func withManifest(_ files: TestFiles) -> TestFiles {
    [(manifestName, testManifest(files).writeBytes())] + files
}

/// Write files into a folder.
@discardableResult
func writeFiles(_ files: TestFiles, to folder: URL) throws -> URL {
    try makeFolder(folder)
    for file in files {
        let place = folder.at(file.path)
        try makeFolder(place.deletingLastPathComponent())
        try store(file.content, at: place)
    }
    return folder
}

func store(_ content: [UInt8], at file: URL) throws {
    try Data(content).write(to: file)
}

func stored(_ file: URL) throws -> [UInt8] {
    try [UInt8](Data(contentsOf: file))
}

/// Do something that must fail in a way that a person can act on, and return how.
func refusal(_ work: () throws -> Void) throws -> any AppError {
    do {
        try work()
    } catch let error as any AppError {
        return error
    }
    throw BadVectors(description: "it was taken")
}
