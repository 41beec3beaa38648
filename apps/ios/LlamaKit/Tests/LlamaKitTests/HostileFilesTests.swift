import Foundation
import Testing

@testable import LlamaKit

/// What others wrote is read or refused in words, whatever it is: Swift would end the app at an index or
/// a sum that is out of its range.
@Suite("Files that somebody spoilt")
struct HostileFilesTests {
    private let folder: TestFolder

    init() throws { folder = try TestFolder() }

    /// Read something, and return how often it was read and refused.
    private func attempt(_ times: Int, seed: UInt64, _ read: (inout Spoiler) throws -> Void) throws {
        var spoiler = Spoiler(seed)
        var (done, refused) = (0, 0)
        for _ in 0..<times {
            do {
                try read(&spoiler)
                done += 1
            } catch let error as any AppError {
                #expect(!error.message.isEmpty)
                refused += 1
            }
        }
        #expect(done > 0 && refused > 0, "\(done) read, \(refused) refused")
    }

    private func json(_ text: String) throws -> Json { try parseJson(text, where: "file") }

    private func stored(_ path: String) throws -> [UInt8] {
        try [UInt8](Data(contentsOf: repository.appending(path: path)))
    }

    @Test func manifests() throws {
        let good = try Vectors("manifests.json").entries("good").map { try json($0.text("text")) }
        try attempt(800, seed: 1) { spoiler in
            let content = spoiler.spoilt(good[spoiler.below(good.count)]).writeBytes()
            let found = try Manifest.parse(spoiler.below(4) == 0 ? spoiler.spoilt(content) : content)
            #expect(found.sizeBytes >= 0)
            for tokens in [0, 1, found.maxContext, Int.max] {
                _ = askMemory(found.memory, contextTokens: tokens, availableBytes: 1 << 40, reservedBytes: 0)
            }
            _ = try found.chat.map { try ChatFormat($0, vocabSize: found.vocabSize) }
        }
    }

    @Test func signaturesOfCoreMLPackages() throws {
        let numbers = ["2", "3", "512", "64", "4096", "1"]
        let others = ["0", "-1", "5", "2147483647", "16777216", "3037000500", "9223372036854775807"]
        let functions = #""functions": {"prefill": 64, "decode": 1}"#
        try attempt(1500, seed: 2) { spoiler in
            var graph = flexibleGraph
            if spoiler.below(2) == 0 { graph = graph.replacing(#""functions": {}"#, with: functions) }
            // Everywhere, since both caches must be alike.
            for _ in 0...spoiler.below(3) {
                let other = others[spoiler.below(others.count)]
                graph = graph.replacing(" \(numbers[spoiler.below(numbers.count)]),", with: " \(other),")
                graph = graph.replacing(" \(numbers[spoiler.below(numbers.count)])]", with: " \(other)]")
            }
            let read = spoiler.below(3) == 0 ? spoiler.spoilt(try json(graph)) : try json(graph)
            let layout = try CoreMLLayout(graph: read.fields(where: "graph"))
            let size = layout.cacheShape(positions: layout.maxContext + 1).reduce(1, *)
            #expect(size > 0 && 8 * layout.vocabSize > 0)
            let plan = CoreMLPlan(form: layout.form, maxContext: layout.maxContext)
            #expect(plan.nextCall([1, 2, 3], at: 0).ids.count <= max(layout.maxContext, 3))
        }
    }

    @Test func goldenData() throws {
        let golden = Json.object(try Vectors("golden.json").fields("golden").json)
        let cache = try KeptCache(TinyLlama())
        try attempt(600, seed: 3) { spoiler in
            let content = spoiler.spoilt(golden).writeBytes()
            let found = try Golden.parse(spoiler.below(8) == 0 ? spoiler.spoilt(content) : content)
            if spoiler.below(40) != 0 { return }
            if let measured = try found.run(cache) { _ = found.judge(measured).json() }
        }
    }

    @Test func tokenizers() throws {
        let names = ["smollm2", "llama2", "metaspace", "gap", "distilled", "llama3"]
        let good = try names.map { name in
            try parseJson(stored("apps/shared/vectors/tokenizers/\(name)/tokenizer.json"), where: name)
        }
        let settings = try json(
            #"{"bos_token": "<s>", "legacy": false, "added_tokens_decoder": {"5": {"content": "<x>"}}}"#)
        try attempt(200, seed: 4) { spoiler in
            let content = spoiler.spoilt(good[spoiler.below(good.count)]).writeBytes()
            try put("tokenizer.json", spoiler.below(8) == 0 ? spoiler.spoilt(content) : content)
            try put("tokenizer_config.json", spoiler.spoilt(settings).writeBytes())
            try use(loadTokenizer(folder.url))
        }
    }

    @Test func ranks() throws {
        let good = try stored("export/llama_export/demo/tokenizer.model")
        try attempt(30, seed: 5) { spoiler in
            try put("tokenizer.model", spoiler.below(6) == 0 ? good : spoiler.spoilt(good))
            try use(loadTokenizer(folder.url))
        }
    }

    private func put(_ name: String, _ content: [UInt8]) throws {
        try Data(content).write(to: folder.url.at(name))
    }

    private func use(_ tokenizer: any Tokenizer) throws {
        let ids = tokenizer.encode("<s> Hello, it's 12345\r\n  été 🐶 \u{2581}a </s>", continues: false)
        _ = try tokenizer.decode(ids)
        let stream = tokenizer.streamDecoder(continues: true)
        for id in 0..<Int32(min(tokenizer.vocabSize, 300)) { _ = try stream.push(id) }
        _ = stream.flush()
        _ = Sampler(vocabSize: tokenizer.vocabSize)
    }

    @Test func turnsOfDialogs() throws {
        let tokenizer = try smallTokenizer("smollm2")
        let forms = try Vectors("chat.json", format: 2).entries("forms").map { try $0.required("chat") }
        let said = [Message(.system, "Be brief."), Message(.user, "Hi"), Message(.assistant, "<b></b> x")]
        try attempt(800, seed: 6) { spoiler in
            let chat = spoiler.spoilt(forms[spoiler.below(forms.count)])
            let form = try ChatFormat(chat.fields(where: "chat"), vocabSize: 1 << 20)
            let first = form.takesSystem ? 0 : 1
            _ = try form.encode(said[first...] + [Message(.user, "?")], tokenizer)
        }
    }

    @Test func conversationsWithARightChecksum() throws {
        let sound = Conversation(
            id: "a", title: "t", model: "m", changedMs: 5, system: "s",
            turns: [
                SavedTurn(Message(.user, "Hi")),
                SavedTurn(
                    Message(.assistant, "Hello"),
                    figures: AnswerFigures(
                        newTokens: 1, tokensPerS: 2, timeToFirstTokenS: 3, contextTokens: 4, maxContext: 5)),
            ])
        let content = try parseJson(sound.write(), where: "a").fields(where: "a").required("conversation")
        try attempt(600, seed: 7) { spoiler in
            let spoilt = spoiler.spoilt(content)
            let file: JsonObject = [
                "format_version": number(1), "sha256": .text(Sha256.hex(of: spoilt.writeBytes())),
                "conversation": spoilt,
            ]
            let read = try Conversation.parse(Json.object(file).writeBytes(), where: "a")
            #expect(try Conversation.parse(read.write(), where: "a") == read)
            _ = read.toText()
        }
    }

    @Test func samplingOfBundles() throws {
        let wishes = try json(
            #"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 5, "min_p": 0.1}"#)
        var spoiler = Spoiler(8)
        let sampler = Sampler(vocabSize: 64)
        let logits = (0..<64).map { Float($0 * 7 % 64) }
        for _ in 0..<1000 {
            guard let settings = spoiler.spoilt(wishes).asObject else { continue }
            let found = ModelSampling(settings).sampling
            let id = try sampler.draw(logits, found, u: Double(spoiler.below(1000)) / 1000)
            #expect((0..<64).contains(id))
        }
    }

    @Test func tablesOfZips() throws {
        let files: TestFiles = [("m/manifest.json", Array("{}".utf8)), ("m/a", [1, 2, 3]), ("m/b/c", [])]
        let good = [false, true].map { TestZip(files, isLong: $0, comment: "made").bytes }
        try attempt(2000, seed: 9) { spoiler in
            try put("zip", spoiler.spoilt(good[spoiler.below(2)]))
            let archive = try ZipArchive(folder.url.at("zip"))
            for entry in archive.entries { _ = try archive.read(entry) { _ in true } }
        }
    }
}
