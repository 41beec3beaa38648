import Foundation
import Testing

@testable import LlamaKit

/// A folder of models that a bundle is imported into, and one where it comes from.
private final class ImportCase {
    let folder: TestFolder
    var models: URL { folder.url.at("models") }
    var source: URL { folder.url.at("source") }

    init() throws {
        folder = try TestFolder()
        try makeFolder(models)
    }

    func unzip(
        _ content: [UInt8], freeBytes: Int64 = Int64.max,
        _ onProgress: @escaping (DownloadProgress) -> Bool = { _ in true }
    ) throws -> ModelBundle {
        let zip = folder.url.at("bundle.zip")
        try store(content, at: zip)
        return try BundleImport(models: models, freeBytes: { _ in freeBytes })
            .fromZip(zip, name: "m", onProgress: onProgress)
    }

    func copy(
        _ files: TestFiles, freeBytes: Int64 = Int64.max,
        _ onProgress: @escaping (DownloadProgress) -> Bool = { _ in true }
    ) throws -> ModelBundle {
        deleteTree(source)
        try writeFiles(files, to: source)
        return try BundleImport(models: models, freeBytes: { _ in freeBytes })
            .fromFolder(source, name: "m", onProgress: onProgress)
    }

    func requireNothingLeft() { #expect(namesIn(models) == []) }
}

private let files = testFiles()
private let whole = withManifest(files)

private func changed(_ path: String, _ content: [UInt8]?) -> TestFiles {
    whole.compactMap { file in
        file.path == path ? content.map { (path, $0) } : file
    }
}

private func zip(_ files: TestFiles) -> [UInt8] { TestZip(files).bytes }

private func zipWith(_ path: String, _ edit: (inout TestZip.Entry) -> Void = { _ in }) -> [UInt8] {
    var made = TestZip(whole + [(path, [1, 2, 3])])
    edit(&made.entries[made.entries.count - 1])
    return made.bytes
}

private let tokenizerOfAnother = Json.object([
    "file": .text("other/tokenizer.json"), "vocab_size": number(10), "stop_token_ids": .array([number(9)]),
])

/// What is imported, what it is called, and the words for what is wrong with it.
private struct BadSource<Content: Sendable>: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let content: Content
    let words: String

    init(_ name: String, _ content: Content, _ words: String) {
        testDescription = name
        self.content = content
        self.words = words
    }
}

private let badZips: [BadSource<[UInt8]>] = [
    BadSource("a way out", zipWith("../../evil"), "which leads out of the folder"),
    BadSource("an absolute path", zipWith("/evil"), "which is not relative"),
    BadSource("a hidden way out", zipWith("a/\u{301}../.."), "which leads out of the folder"),
    BadSource("a backslash", zipWith("a\\..\\evil"), "holds a backslash"),
    BadSource("a drive", zipWith("C:evil"), "holds a backslash or a colon"),
    BadSource("a folder above", zipWith("../"), "which leads out of the folder"),
    BadSource("a link", zipWith("evil") { $0.mode = 0o120777 }, "the zip holds 'evil', which is a link"),
    BadSource("no manifest", zip(files), "holds no manifest.json"),
    BadSource(
        "a manifest far down", zip(whole.map { ("a/b/c/d/e/" + $0.path, $0.content) }),
        "holds no manifest.json"),
    BadSource("other bytes", zip(changed("config.json", [1, 2])), "config.json has other bytes"),
    BadSource("a file left out", zip(changed("model.onnx", nil)), "model.onnx is missing"),
    BadSource("a longer file", zip(changed("config.json", [1, 2, 3])), "config.json has more than 2 bytes"),
    BadSource("a shorter file", zip(changed("config.json", [1])), "config.json has only 1 of 2 bytes"),
    BadSource("nothing", [], "is no zip"),
    BadSource("no entries", zip([]), "is no zip, or an empty one"),
    BadSource("a text", Array("no zip at all".utf8), "is no zip"),
    BadSource("a file twice", zip(whole + [whole[1]]), "it holds 'config.json' twice"),
    BadSource("no letters", TestZip(whole, nameBytes: [0xff, 0xfe]).bytes, "a name is no UTF-8"),
]

private let badFolders: [BadSource<TestFiles>] = [
    BadSource("a file left out", whole.filter { $0.path != "model.onnx" }, "model.onnx is missing"),
    BadSource(
        "other bytes", changed("config.json", [1, 2]), "config.json has other bytes than the manifest says"),
    BadSource("a longer file", changed("config.json", [1, 2, 3]), "config.json has more than 2 bytes"),
    BadSource("a shorter file", changed("config.json", [1]), "config.json has only 1 of 2 bytes"),
    BadSource("no manifest", files, "it holds no manifest.json, so it is no bundle"),
    BadSource(
        "a newer manifest",
        changed(manifestName, testManifest(files, [("format_version", number(3))]).writeBytes()),
        "manifest.json has format_version 3; this app reads format_version 2"),
    BadSource(
        "a tokenizer that is not there",
        changed(manifestName, testManifest(files, [("tokenizer", tokenizerOfAnother)]).writeBytes()),
        "manifest.json: tokenizer: file: expected one of the files, found other/tokenizer.json"),
]

@Suite("Imports of bundles")
struct BundleImportTests {
    @Test func aFolderAndAZipAreImportedAlsoWhereTheZipHasTheFolderInIt() throws {
        let test = try ImportCase()
        let inside = whole.map { ("3.2-1B/onnx/" + $0.path, $0.content) }
        let ways: [() throws -> ModelBundle] = [
            { try test.copy(whole) },
            { try test.unzip(zip(whole)) },
            { try test.unzip(zip(inside)) },
            { try test.unzip(TestZip(whole, isLong: true).bytes) },
            { try test.unzip(TestZip(whole, comment: "PK\u{5}\u{6} of a zip").bytes) },
            { try test.unzip(zip([("sub/", []), ("notes.txt", [1])] + whole)) },
        ]
        for way in ways {
            let bundle = try way()
            #expect(bundle.folder.path == test.models.at("m").path)
            for file in files { #expect(try stored(bundle.folder.at(file.path)) == file.content) }
            #expect(namesIn(test.models) == ["m"])
            #expect(namesIn(bundle.folder) == ["config.json", "empty", "manifest.json", "model.onnx", "sub"])
            deleteTree(bundle.folder)
        }
    }

    @Test(arguments: badZips)
    private func whatIsWrongInAZipIsNamedAndLeavesNothing(bad: BadSource<[UInt8]>) throws {
        let test = try ImportCase()
        let error = try refusal { _ = try test.unzip(bad.content) }
        #expect(error is BundleError)
        #expect(error.message.contains(bad.words), "\(error.message)")
        #expect(!error.hint.isEmpty)
        test.requireNothingLeft()
    }

    @Test(arguments: badFolders)
    private func whatIsWrongInAFolderIsNamedAndLeavesNothing(bad: BadSource<TestFiles>) throws {
        let test = try ImportCase()
        let error = try refusal { _ = try test.copy(bad.content) }
        #expect(error is BundleError)
        #expect(error.message == bad.words)
        test.requireNothingLeft()
    }

    @Test func aCompressedZipIsRefusedWithAWayOut() throws {
        let test = try ImportCase()
        for at in [0, 2] {
            var made = TestZip(whole)
            made.entries[at].method = 8
            let error = try refusal { _ = try test.unzip(made.bytes) }
            #expect(error.message == "the zip is compressed, which this app does not read")
            #expect(error.hint.contains("Unpack it in Files first"))
            test.requireNothingLeft()
        }
        var locked = TestZip(whole)
        locked.entries[2].flags = 1
        #expect(try refusal { _ = try test.unzip(locked.bytes) }.message.contains("wants a password"))
        test.requireNothingLeft()
    }

    @Test func aZipDamagedAtAnyByteIsRefusedOrRightAndLeavesNothingWhenRefused() throws {
        let test = try ImportCase()
        let small: TestFiles = testFiles().map { ($0.path, Array($0.content.prefix(300))) }
        var random = TestRandom(3)
        for content in [zip(withManifest(small)), TestZip(withManifest(small), isLong: true).bytes] {
            for at in content.indices where random.below(30) == 0 {
                var damaged = content
                damaged[at] &+= UInt8(1 + random.below(255))
                try requireRightOrRefused(test, at % 8 == 0 ? Array(content.prefix(at)) : damaged)
            }
        }
    }

    private func requireRightOrRefused(_ test: ImportCase, _ content: [UInt8]) throws {
        do {
            let bundle = try test.unzip(content)
            #expect(try bundle.checkHashes { _ in true })
            #expect(bundle.manifest.modelName == "test")
            deleteTree(bundle.folder)
        } catch is BundleError {
            test.requireNothingLeft()
        }
    }

    @Test func whatThereIsNoRoomForIsRefusedBeforeItIsCopied() throws {
        let test = try ImportCase()
        for way in [
            { try test.copy(whole, freeBytes: 1000) }, { try test.unzip(zip(whole), freeBytes: 1000) },
        ] {
            let error = try refusal { _ = try way() }
            #expect(error.message == "the model needs 33619434 more bytes of storage, and 1000 are free")
            test.requireNothingLeft()
        }
    }

    @Test func aStopLeavesNothingAndAModelThatIsThereIsKept() throws {
        let test = try ImportCase()
        var seen = [DownloadProgress]()
        for way in [{ try test.copy(whole, $0) }, { try test.unzip(zip(whole), $0) }]
            as [(@escaping (DownloadProgress) -> Bool) throws -> ModelBundle]
        {
            let error = try refusal { _ = try way { $0.doneBytes < 1000 } }
            #expect(error is Stopped)
            test.requireNothingLeft()
        }
        _ = try test.copy(whole) {
            seen.append($0)
            return true
        }
        #expect(seen.last == DownloadProgress(doneBytes: 65_002, sizeBytes: 65_002))
        let error = try refusal { _ = try test.copy(whole) }
        #expect(error.message == "a model named m is there already")
        #expect(try ModelBundle.open(test.models.at("m")).checkHashes { _ in true })
    }

    @Test func twoTapsImportOnceAndNothingIsTakenAwayFromTheFirst() throws {
        let test = try ImportCase()
        let other = try ImportCase()
        try writeFiles(whole, to: other.source)
        let models = test.models
        let second = Kept<any AppError>()
        let bundle = try test.copy(whole) { _ in
            BundleImport(models: models).discardKilled()
            second.value = try? refusal {
                _ = try BundleImport(models: models).fromFolder(other.source, name: "m") { _ in true }
            }
            return true
        }
        #expect(second.value?.message == "m is just being fetched or copied")
        #expect(try bundle.checkHashes { _ in true })
        #expect(namesIn(models) == ["m"])
    }

    @Test func whatAKilledImportLeftIsDeletedAndNothingElse() throws {
        let test = try ImportCase()
        for name in ["m.import", "m", "n.download"] { try writeFiles(whole, to: test.models.at(name)) }
        BundleImport(models: test.models).discardKilled()
        #expect(namesIn(test.models) == ["m", "n.download"])
    }

    #if os(Linux)
        @Test func aSourceThatCannotBeReadIsNotTheStoragesFault() throws {
            let test = try ImportCase()
            try writeFiles(whole, to: test.source)
            // Linux opens its own memory as a file of no length, and refuses to read its beginning.
            deleteTree(test.source.at(manifestName))
            symlink("/proc/self/mem", test.source.at(manifestName).path)
            let error = try refusal {
                _ = try BundleImport(models: test.models).fromFolder(test.source, name: "m") { _ in true }
            }
            #expect(error.message == "manifest.json cannot be read: Input/output error")
            #expect(error.hint == "Copy it again from where it was made.")
            test.requireNothingLeft()
        }
    #endif

    @Test func aStorageThatTakesNothingIsSaid() throws {
        let test = try ImportCase()
        try makeFolder(test.models.at("m.lock"))
        let error = try refusal { _ = try test.copy(whole) }
        #expect(error.message == "m cannot be written: Is a directory")
        #expect(error.hint.contains("storage is full"))
    }

    @Test func whatAnImportLeftThatWasKilledIsSweptAway() throws {
        let test = try ImportCase()
        try writeFiles([("half", [1])], to: test.models.at("m.import"))
        let bundle = try test.copy(whole)
        #expect(namesIn(test.models) == ["m"])
        #expect(lengthOfFile(bundle.folder.at("half")) == nil)
    }

    /// A zip beyond 4 GiB; the file has a hole and takes no room.
    @Test func aZipBeyond4GiBIsRead() throws {
        let test = try ImportCase()
        let file = test.folder.url.at("large.zip")
        let hole: Int64 = 5 << 30
        try store(TestZip([("padding", [1])]).bytes, at: file)
        #expect(truncate(file.path, off_t(hole)) == 0)
        let writer = try FileWriter(file, appends: true)
        try TestZip(whole, isLong: true, from: hole).bytes.withUnsafeBytes { try writer.write($0) }
        try writer.finish()
        let bundle = try BundleImport(models: test.models).fromZip(file, name: "m") { _ in true }
        #expect(try bundle.checkHashes { _ in true })
    }
}
