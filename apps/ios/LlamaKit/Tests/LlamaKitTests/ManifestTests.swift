import Foundation
import Testing

@testable import LlamaKit

private func parse(_ others: [(String, Json?)] = []) throws -> Manifest {
    try Manifest.parse(testManifest(testFiles(), others).writeBytes())
}

private func entry(_ digit: String, _ sizeBytes: Int) -> Json {
    .object(["sha256": .text(String(repeating: digit, count: 64)), "size_bytes": number(sizeBytes)])
}

private func files(_ names: String...) -> (String, Json?) {
    ("files", .object(JsonObject(names.map { ($0, entry("a", 1)) })))
}

private func tokenizer(_ ids: Json...) -> (String, Json?) {
    let object: JsonObject = [
        "file": .text("sub/tokenizer.json"), "vocab_size": number(10), "stop_token_ids": .array(ids),
    ]
    return ("tokenizer", .object(object))
}

private func model(_ own: JsonObject) -> (String, Json?) {
    ("model", .object(["name": .text("guard"), "config": .object(["llama_export": .object(own)])]))
}

@Suite("Manifests")
struct ManifestTests {
    @Test func aManifestIsRead() throws {
        let need: JsonObject = ["resident_bytes": number(5), "kv_bytes_per_token": number(7)]
        let found = try parse([("memory", .object(need))])
        #expect(found.target == "onnx")
        #expect(found.stopIds == [9])
        #expect(found.sizeBytes == 65_002)
        #expect(found.files.map(\.path) == ["config.json", "model.onnx", "empty", "sub/tokenizer.json"])
        #expect(found.memory == MemoryNeed(residentBytes: 5, kvBytesPerToken: 7))
        #expect(try parse().memory == nil)
        #expect(try parse([("chat", .null)]).chat == nil)
    }

    @Test func aModelWhoseHeadWasPrunedIsRefusedWhereTextIsWanted() throws {
        let pruned = try parse([model(["head_tokens": .array([number(5), number(7)])])])
        let error = try refusal { try pruned.requireWriter() }
        #expect(error.message.contains("guard judges texts and cannot write any"))
        try parse([model(["adaptor_rank": number(16)])]).requireWriter()
        try parse().requireWriter()
    }

    @Test(
        arguments: [
            ([("format_version", number(3))], "format_version 3; this app reads format_version 2"),
            ([("format_version", number(0))], "expected 1 or 2, found 0"),
            ([("target", nil)], "manifest.json: the key target is missing"),
            ([("graph", .array([]))], "graph: expected an object, found a list"),
            ([("artifact", .text("other.onnx"))], "artifact: expected one of the files"),
            ([("artifact", .text("model"))], "artifact: expected one of the files"),
            ([("artifact", .text("../model.onnx"))], "one that leads out of the folder"),
            ([files("../../app.db")], "one that leads out of the folder"),
            ([files("a/\u{301}../..")], "one that leads out of the folder"),
            ([files("/etc/passwd")], "one that is not relative"),
            ([files("a\\b")], "backslash"),
            ([files("a", "A")], "expected names that differ, found a"),
            // One file on Apple's systems, however it is spelt.
            ([files("\u{e9}", "e\u{301}")], "expected names that differ, found \u{e9}"),
            ([("files", .object(["a": entry("A", 1)]))], "64 hex"),
            ([("files", .object(["a": entry("a", -1)]))], "expected a number of bytes, found -1"),
            ([tokenizer(number(10))], "expected ids below 10, found 10"),
            ([tokenizer()], "expected at least one token id"),
            ([tokenizer(.text("9"))], "expected token ids, found a string"),
        ] as [([(String, Json?)], String)])
    func whatIsMissingOrWrongIsNamedWithItsPlace(others: [(String, Json?)], words: String) throws {
        let error = try refusal { _ = try parse(others) }
        #expect(error is BundleError)
        #expect(error.message.contains(words), "\(error.message)")
        #expect(!error.hint.isEmpty)
    }

    @Test func anArtifactMayBeAFolder() throws {
        var all = testFiles()
        all.append(("model.mlpackage/Data/weights.bin", [1]))
        let found = try Manifest.parse(
            testManifest(all, [("artifact", .text("model.mlpackage"))]).writeBytes())
        #expect(found.artifact == "model.mlpackage")
    }

    @Test func whatIsNoJsonIsADamagedBundle() throws {
        for content in ["{", "", "[]", "null"] {
            let error = try refusal { _ = try Manifest.parse(Array(content.utf8)) }
            #expect(error.hint.contains("copy it again"))
        }
        let error = try refusal { _ = try Manifest.parse([0x7b, 0x22, 0xff, 0x22]) }
        #expect(error.message.contains("UTF-8"))
    }

    @Test func lengthsThatNoStorageHasDoNotWrapAround() throws {
        let all = ("files", Json.object(["a": entry("a", 1), "b": entry("b", 1 << 53)]))
        let error = try refusal { _ = try parse([all]) }
        #expect(
            error.message
                == "manifest.json: files: b: size_bytes: expected at most 9007199254740991 bytes, "
                + "found 9007199254740992")
    }
}

@Suite("Manifests that Python knows")
struct ManifestVectorsTests {
    @Test func goodOnesAreTaken() throws {
        try Vectors("manifests.json").each("good") { try read($0.text("text")) }
    }

    @Test func badOnesAreRefused() throws {
        var taken = [String]()
        try Vectors("manifests.json").each("bad") { entry in
            do {
                try read(entry.text("text"))
                taken.append(try entry.text("name"))
            } catch is any AppError {
                // As it must be.
            }
        }
        #expect(taken == [])
    }

    /// What opening a bundle reads of its manifest.
    private func read(_ text: String) throws {
        let manifest = try Manifest.parse(Array(text.utf8))
        if let chat = manifest.chat { _ = try ChatFormat(chat, vocabSize: manifest.vocabSize) }
    }
}

@Suite("Bundles in a folder")
struct ModelBundleTests {
    private let folder: TestFolder
    private let files = testFiles()
    private var place: URL { folder.url.at("b") }

    init() throws {
        folder = try TestFolder()
        try writeFiles(withManifest(files), to: folder.url.at("b"))
    }

    @Test func aBundleIsOpenedAndEveryChangedByteIsFound() throws {
        let bundle = try ModelBundle.open(place)
        #expect(bundle.artifact.path == place.path + "/model.onnx")
        #expect(try bundle.checkHashes { _ in true })
        #expect(try !bundle.checkHashes { _ in false })
        for file in files where !file.content.isEmpty {
            var changed = file.content
            changed[changed.count / 2] &+= 1
            try store(changed, at: place.at(file.path))
            let error = try refusal { _ = try bundle.checkHashes { _ in true } }
            #expect(error.message == "b: \(file.path) has other bytes than the manifest says")
            try store(file.content, at: place.at(file.path))
        }
        try store([1], at: place.at("config.json"))
        deleteTree(place.at("model.onnx"))
        let error = try refusal { _ = try bundle.checkHashes { _ in true } }
        #expect(
            error.message
                == "b: config.json has 1 bytes, and the manifest says 2; model.onnx is missing")
    }

    @Test func aFolderThatWasHalfCopiedNamesWhatIsMissing() throws {
        deleteTree(place.at("config.json"))
        try store([0, 0, 0, 0, 0, 0, 0], at: place.at("model.onnx"))
        let error = try refusal { _ = try ModelBundle.open(place) }
        #expect(error.message.contains("config.json is missing"))
        #expect(error.message.contains("model.onnx has 7 bytes, and the manifest says 60000"))
        deleteTree(place.at(manifestName))
        #expect(try refusal { _ = try ModelBundle.open(place) }.message.contains("no bundle"))
    }

    @Test func aFolderOrAPipeInTheWayIsMissing() throws {
        for path in ["model.onnx", "config.json"] { deleteTree(place.at(path)) }
        try makeFolder(place.at("model.onnx"))
        mkfifo(place.at("config.json").path, 0o644)
        let error = try refusal { _ = try ModelBundle.open(place) }
        #expect(error.message == "b: config.json is missing; model.onnx is missing")
        #expect(throws: FileFault.self) { try FileReader(place.at("config.json")) }
    }

    @Test func aManifestOfAnotherSizeThanAnyIsNotRead() throws {
        #expect(truncate(place.at(manifestName).path, 1 << 40) == 0)
        #expect(
            try refusal { _ = try ModelBundle.open(place) }.message.contains("is larger than 16777216 bytes"))
    }

    /// Beyond 4 GiB, where numbers of 32 bits end; the file has a hole and takes no room.
    @Test func aFileBeyond4GiBIsReadAtItsEnd() throws {
        let file = place.at("large")
        let length: Int64 = (5 << 30) + 3
        try store([], at: file)
        #expect(truncate(file.path, off_t(length)) == 0)
        let writer = try FileWriter(file, appends: true)
        try [UInt8(7), 8].withUnsafeBytes { try writer.write($0) }
        try writer.finish()
        #expect(lengthOfFile(file) == length + 2)
        let reader = try FileReader(file)
        #expect(reader.byteCount == length + 2)
        #expect(try reader.bytes(at: length - 1, count: 3) == [0, 7, 8])
    }

    @Test func namesOfFilesKeepTheirBytes() throws {
        for name in ["a%2Fb", "a b", "a#b?c;d", "e\u{301}", "\u{e9}", "😀"] {
            let file = place.at(name)
            try writeWhole([1], to: file)
            #expect(lengthOfFile(file) == 1)
            #if os(Linux)
                #expect(namesIn(place).contains { sameBytes($0, name) }, "\(name)")
            #endif
            deleteTree(file)
            #expect(!isTaken(file))
        }
    }
}
