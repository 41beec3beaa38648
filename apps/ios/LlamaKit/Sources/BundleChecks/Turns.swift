import Foundation
import LlamaKit

/// What is read from a position on, and the ids that Python's runtime wrote after it: the likeliest.
public struct Turn: Sendable {
    public let position: Int
    public let ids: [Int32]
    public let written: [Int32]

    /// Read the ids in pieces and write the likeliest id as often as Python did.
    public func play(with model: any StepModel, piece: Int = 128) throws -> [Int32] {
        var at = position
        var found: [Int32] = []
        for begin in stride(from: 0, to: ids.count, by: piece) {
            let part = Array(ids[begin..<min(begin + piece, ids.count)])
            let logits = try model.step(part, at: at)
            at += part.count
            if at == position + ids.count { found.append(likeliest(logits)) }
        }
        while found.count < written.count, let last = found.last {
            found.append(likeliest(try model.step([last], at: at)))
            at += 1
        }
        return found
    }

    private func likeliest(_ logits: UnsafeBufferPointer<Float>) -> Int32 {
        Int32(logits.indices.max { logits[$0] < logits[$1] } ?? 0)
    }
}

/// A real bundle, and the turns that Python played with it; tools/apps/engine_fixtures.py makes both.
public struct Turns: Sendable {
    public let bundle: URL
    public let artifact: URL
    public let vocabSize: Int
    public let maxContext: Int
    public let turns: [Turn]

    /// The folder of the bundles; nil where none was made.
    public static var folder: URL? {
        ProcessInfo.processInfo.environment["LLAMA_FIXTURES"].map { URL(fileURLWithPath: $0) }
    }

    /// Return whether a bundle was made on this machine; nothing is said of what it holds.
    public static func isMade(_ name: String) -> Bool {
        guard let folder else { return false }
        return FileManager.default.fileExists(atPath: folder.appendingPathComponent("\(name).json").path)
    }

    /// Return a bundle's turns, or nil where it was not made on this machine.
    public static func of(_ name: String) throws -> Turns? {
        guard let folder, isMade(name) else { return nil }
        let text = try Data(contentsOf: folder.appendingPathComponent("\(name).json"))
        let read = try parseJson(Array(text), where: name).fields(where: name)
        let bundle = folder.appendingPathComponent(name, isDirectory: true)
        return Turns(
            bundle: bundle,
            artifact: bundle.appendingPathComponent(try read.text("artifact")),
            vocabSize: try read.int("vocab_size"),
            maxContext: try read.int("max_context"),
            turns: try read.list("turns").map { item in
                let turn = try item.fields(where: name)
                return Turn(
                    position: try turn.int("position"), ids: try ids(turn, "ids"),
                    written: try ids(turn, "written"))
            })
    }

    /// Return the manifest's `graph`.
    public func graph() throws -> JsonFields {
        let text = try Data(contentsOf: bundle.appendingPathComponent("manifest.json"))
        return try parseJson(Array(text), where: "manifest.json").fields(where: "manifest.json").fields(
            "graph")
    }

    private static func ids(_ owner: JsonFields, _ key: String) throws -> [Int32] {
        try owner.list(key).map { Int32(try $0.asNumber?.int() ?? -1) }
    }
}
