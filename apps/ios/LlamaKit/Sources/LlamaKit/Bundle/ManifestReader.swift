/// Reads a manifest's fields, and refuses what an app would be misled by.
struct ManifestReader {
    private static let firstVersion = 1
    private static let ownKey = "llama_export"
    private static let headTokens = "head_tokens"
    private static let sha256Digits = 64

    /// Largest size of a bundle; beyond it sizes could not be added up.
    private static let mostBundleBytes: Int64 = 1 << 53

    private let top: JsonFields

    init(_ top: JsonFields) { self.top = top }

    /// - Throws: ``BundleError`` or ``BadInput`` if a field is wrong
    func read() throws -> Manifest {
        let version = try top.int("format_version")
        try requireKnown(version)
        let graph = try top.fields("graph")
        let quantization = try top.fields("quantization")
        let tokenizer = try top.fields("tokenizer")
        let vocabSize = try positive(tokenizer, "vocab_size")
        try requireBeginning(tokenizer, vocabSize)
        let manifest = Manifest(
            formatVersion: version,
            target: try top.text("target"),
            artifact: try path(top, "artifact"),
            modelName: try top.fields("model").text("name"),
            maxContext: try positive(graph, "max_context"),
            allLogits: try graph.bool("all_logits"),
            recipe: try quantization.text("recipe"),
            bitsPerWeight: try quantization.double("bits_per_weight"),
            tokenizerFile: try path(tokenizer, "file"),
            vocabSize: vocabSize,
            stopIds: try ids(tokenizer, "stop_token_ids", vocabSize),
            files: try files(top.fields("files")),
            createdWith: try texts(top.fields("created_with")),
            memory: top.contains("memory") ? try memory(top.fields("memory")) : nil,
            isPruned: try isPruned(top.fields("model")),
            chat: top.contains("chat") ? try top.fields("chat") : nil)
        try requireListed(manifest)
        return manifest
    }

    private func isPruned(_ model: JsonFields) throws -> Bool {
        guard model.contains("config") else { return false }
        let config = try model.fields("config")
        return try config.contains(Self.ownKey) && config.fields(Self.ownKey).contains(Self.headTokens)
    }

    private func requireKnown(_ version: Int) throws {
        if version > manifestVersion {
            throw BundleError(
                "\(top.place) has format_version \(version); "
                    + "this app reads format_version \(manifestVersion)",
                hint: "Update the app, or export the model again with an older llama-export.",
                kind: .newerFormat)
        }
        if version < Self.firstVersion {
            throw fault(top, "format_version", "1 or \(manifestVersion)", version)
        }
    }

    private func requireBeginning(_ tokenizer: JsonFields, _ vocabSize: Int) throws {
        let key = "bos_token_id"
        guard tokenizer.contains(key) else { return }
        let id = try tokenizer.int(key)
        if id < 0 || id >= vocabSize { throw fault(tokenizer, key, "an id below \(vocabSize)", id) }
    }

    private func requireListed(_ manifest: Manifest) throws {
        let paths = Set(manifest.files.map { Utf8Key($0.path) })
        // A Core ML package is a folder: its files are listed, not itself.
        let inside = Array((manifest.artifact + "/").utf8)
        let isListed =
            paths.contains(Utf8Key(manifest.artifact))
            || manifest.files.contains { $0.path.utf8.starts(with: inside) }
        if !isListed { throw fault(top, "artifact", "one of the files", manifest.artifact) }
        if !paths.contains(Utf8Key(manifest.tokenizerFile)) {
            throw fault(try top.fields("tokenizer"), "file", "one of the files", manifest.tokenizerFile)
        }
    }

    private func path(_ owner: JsonFields, _ key: String) throws -> String {
        let path = try owner.text(key)
        if let found = pathFault(path) {
            throw fault(owner, key, "a path inside the folder", "one that \(found)")
        }
        return path
    }

    private func positive(_ owner: JsonFields, _ key: String) throws -> Int {
        let number = try owner.int(key)
        if number < 1 { throw fault(owner, key, "a number above 0", number) }
        return number
    }

    private func notNegative(_ owner: JsonFields, _ key: String) throws -> Int64 {
        let number = try owner.long(key)
        if number < 0 { throw fault(owner, key, "a number of bytes", number) }
        return number
    }

    private func ids(_ owner: JsonFields, _ key: String, _ vocabSize: Int) throws -> Set<Int32> {
        let ids = try owner.list(key).map { item in
            guard let id = item.asNumber.flatMap({ Int32($0.text) }) else {
                throw fault(owner, key, "token ids", item.kind)
            }
            return id
        }
        if let outside = ids.first(where: { $0 < 0 || Int($0) >= vocabSize }) {
            throw fault(owner, key, "ids below \(vocabSize)", outside)
        }
        if ids.isEmpty { throw fault(owner, key, "at least one token id", "none") }
        return Set(ids)
    }

    private func files(_ owner: JsonFields) throws -> [FileEntry] {
        // Two names that differ in their case, or in how a letter is spelt, are one file on many
        // systems. Swift's `==` takes the spellings for one.
        var seen = [String: String]()
        var left = Self.mostBundleBytes
        return try owner.json.keys.map { path in
            if let found = pathFault(path) {
                throw fault(owner, path, "a path inside the folder", "one that \(found)")
            }
            if let other = seen.updateValue(path, forKey: path.lowercased()) {
                throw fault(owner, path, "names that differ", other)
            }
            let entry = try owner.fields(path)
            let sizeBytes = try notNegative(entry, "size_bytes")
            if sizeBytes > left { throw fault(entry, "size_bytes", "at most \(left) bytes", sizeBytes) }
            left -= sizeBytes
            return FileEntry(path: path, sha256: try sha256(entry), sizeBytes: sizeBytes)
        }
    }

    private func sha256(_ entry: JsonFields) throws -> String {
        let text = try entry.text("sha256")
        let digits = Set("0123456789abcdef".utf8)
        if text.utf8.count != Self.sha256Digits || !text.utf8.allSatisfy(digits.contains) {
            let shown = String(text.prefix(Self.sha256Digits))
            throw fault(entry, "sha256", "\(Self.sha256Digits) hex digits", shown)
        }
        return text
    }

    private func texts(_ owner: JsonFields) throws -> [String: String] {
        var found = [String: String]()
        for key in owner.json.keys { found[key] = try owner.text(key) }
        return found
    }

    private func memory(_ owner: JsonFields) throws -> MemoryNeed {
        MemoryNeed(
            residentBytes: try notNegative(owner, "resident_bytes"),
            kvBytesPerToken: try notNegative(owner, "kv_bytes_per_token"))
    }

    private func fault(_ owner: JsonFields, _ key: String, _ expected: String, _ found: Any) -> BundleError {
        BundleError("\(owner.at(key)): expected \(expected), found \(found)", hint: Manifest.damagedHint)
    }
}
