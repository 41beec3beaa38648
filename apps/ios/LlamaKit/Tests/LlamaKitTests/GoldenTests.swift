import Foundation
import Testing

@testable import LlamaKit

@Suite("Golden data on this phone")
struct GoldenTests {
    @Test(arguments: [1, 32, 63, 64])
    func theRightModelIsGreenToTheDigitsThatAreWritten(top: Int) throws {
        let found = try GoldenCase.verdict(TinyLlama(), GoldenCase.parse(GoldenCase.document(top: top)))
        #expect(found.isGreen)
        #expect(found.klWorst < 1e-8)
        #expect(found.firstBeyond == nil)
    }

    @Test func anotherProcessorsArithmeticIsGreenAndFarMoreIsRed() throws {
        #expect(try GoldenCase.verdict(TinyLlama(noise: 0.1)).isGreen)
        #expect(try !GoldenCase.verdict(TinyLlama(noise: 1.5)).isGreen)
    }

    @Test(arguments: Fault.allCases)
    func everyFaultOfAnEngineIsRedAndSaysWhere(fault: Fault) throws {
        let places: [Fault: String] = [
            .positionOffByOne: "position 32 of the prompt text, call 2",
            .notFinite: "position 71 of the prompt text, call 41",
        ]
        let found = try GoldenCase.verdict(TinyLlama(fault))
        #expect(!found.isGreen)
        #expect(try #require(found.firstBeyond).contains(places[fault] ?? "call"))
        #expect(found.json()["green"] == .bool(false))
    }

    @Test func aLikeliestTokenThatChangedIsRedWhereItWasClear() throws {
        let lenient = try GoldenCase.parse(GoldenCase.document(klMean: "1e9", klWorst: "1e9"))
        let found = try GoldenCase.verdict(TinyLlama(swapsBest: true), lenient)
        #expect((1..<GoldenCase.calls.count).contains(found.swapped))
        #expect(!found.isGreen)
        #expect(found.firstBeyond?.contains("call") == true)
    }

    @Test func aStopEndsItBetweenCallsAndTheCacheGoesOn() throws {
        let cache = try KeptCache(TinyLlama())
        _ = try cache.read([1, 2, 3])
        let stop = Stop()
        var seen = [Int]()
        let found = try GoldenCase.parse(GoldenCase.document()).run(cache, stop: stop) { done, all in
            seen.append(done)
            #expect(all == GoldenCase.calls.count)
            if done == 5 { stop.request() }
        }
        #expect(found == nil)
        #expect(seen == [0, 1, 2, 3, 4, 5])
        #expect(cache.position == GoldenCase.prefilled + 4)
    }

    @Test func theReportIsWhatTheDesktopReads() throws {
        let golden = try GoldenCase.parse(GoldenCase.document())
        let measured = try #require(try golden.run(KeptCache(TinyLlama(.notFinite))))
        let written = golden.report(
            measured, device: ["model": "a phone", "system": "iOS"], runtime: "arithmetic 2",
            manifestSha256: String(repeating: "ab", count: 32))
        let report = try parseJson(Json.object(written).writeBytes(), where: "report").fields(where: "report")
        let keys = ["format_version", "device", "runtime", "manifest_sha256", "verdict", "positions"]
        #expect(report.json.keys == keys)
        #expect(try report.fields("device").json.keys == ["model", "system"])
        let positions = try report.list("positions").map { try $0.fields(where: "position") }
        #expect(try positions.map { try $0.int("at") } == GoldenCase.calls.map(\.at))
        #expect(try positions[0].list("logprobs").count == 32)
        #expect(try positions[0].int("best") == golden.answers[0].places[0])
        #expect(try positions[40].list("logprobs").allSatisfy { $0 == .null })
        #expect(try positions[40].required("rest_logprob") == .null)
        #expect(try report.fields("verdict").required("kl_worst") == .null)
        #expect(try report.fields("verdict").int("unsound") > 0)
    }

    @Test func placesThatTheArtifactHasNotAreAnotherModels() throws {
        let golden = try GoldenCase.parse(GoldenCase.document())
        let error = try refusal { _ = try golden.run(KeptCache(TinyLlama()), logitCount: 40) }
        #expect(error.message.contains("expected places of 40 logits"))
        #expect(throws: EngineError.self) { try golden.run(KeptCache(TinyLlama()), logitCount: 65) }
        #expect(throws: PromptError.self) { try golden.run(KeptCache(TinyLlama(maxContext: 60))) }
    }
}

private let badKeys: [(String, String, String)] = [
    ("format_version", "2", "format_version: expected 1, found 2"),
    ("positions", "[]", "positions: expected 1 to 1024, found 0"),
    ("prompt_ids", "[-1]", "prompt_ids: expected 1 to 4096 token ids"),
    ("rewind", #"{"to": 97, "ids": [1]}"#, "to: expected at most 96, found 97"),
    ("limits", #"{"kl_mean": -1, "kl_worst": 1, "margin": 1}"#, "kl_mean: expected at least 0"),
]

private let badAnswers: [(String, String)] = [
    (#"{"text": "other"}"#, "positions[3]: text: expected prompt or rewind"),
    (#"{"from": 90, "at": 91}"#, "were read, found 90 to 91"),
    (#"{"from": -1}"#, "positions that were read, found -1 to 34"),
    (#"{"at": 96}"#, "positions that were read, found 34 to 96"),
    (#"{"at": 1}"#, "positions that were read, found 34 to 1"),
    (#"{"rest_logprob": 1}"#, "rest_logprob: expected a logarithm"),
    (#"{"rest_logprob": 0.0}"#, "top: expected probabilities that add up to 1"),
    (#"{"top": [[1, -99999]]}"#, "positions[3]: top: expected probabilities that add up to 1"),
    (#"{"top": [[1]]}"#, "top: expected pairs of a place and a logarithm"),
    (#"{"top": [[1, -1, 2]]}"#, "top: expected pairs of a place and a logarithm"),
    (#"{"top": [1]}"#, "top: expected pairs of a place and a logarithm"),
    (#"{"top": [[-1, -1]]}"#, "top: expected pairs of a place and a logarithm"),
    (#"{"top": [[1.5, -1]]}"#, "top: expected pairs of a place and a logarithm"),
    (#"{"top": [["1", -1]]}"#, "top: expected pairs of a place and a logarithm"),
    (#"{"top": [[1, -1], [1, -2]]}"#, "places that differ"),
    (#"{"top": []}"#, "1 to 64 pairs, found 0"),
]

@Suite("Golden data of another form")
struct GoldenReaderTests {
    @Test(arguments: badKeys)
    func aKeyIsRefusedWithItsPlace(key: String, value: String, words: String) throws {
        var document = try GoldenCase.document()
        document[key] = try parseJson(value, where: key)
        try requireRefused(document, words)
    }

    @Test(arguments: badAnswers)
    func anAnswerIsRefusedWithItsPlace(changes: String, words: String) throws {
        var document = try GoldenCase.document()
        var answers = try #require(document["positions"]?.asArray)
        var answer = try #require(answers[3].asObject)
        for (key, value) in try parseJson(changes, where: "changes").fields(where: "changes").json.entries {
            answer[key] = value
        }
        answers[3] = .object(answer)
        document["positions"] = .array(answers)
        try requireRefused(document, words)
    }

    @Test func whatIsMissingIsNamed() throws {
        var document = try GoldenCase.document()
        document["limits"] = nil
        try requireRefused(document, "the key limits is missing")
        #expect(throws: BundleError.self) { try Golden.parse(Array("{".utf8)) }
    }

    @Test func goldenDataAreReadFromABundleWhenTheyAreWhatItLists() throws {
        let folder = try TestFolder()
        let content = Json.object(try GoldenCase.document()).writeBytes()
        let listed = testFiles() + [(goldenName, content)]
        let bundle = try ModelBundle.open(writeFiles(withManifest(listed), to: folder.url.at("b")))
        #expect(try bundle.readGolden()?.answers.count == GoldenCase.calls.count)
        let none = try ModelBundle.open(writeFiles(withManifest(testFiles()), to: folder.url.at("none")))
        #expect(try none.readGolden() == nil)
        var other = content
        other[other.count / 2] ^= 1
        try store(other, at: bundle.folder.at(goldenName))
        let changed = try refusal { _ = try bundle.readGolden() }
        #expect(changed.message == "b: golden.json has other bytes than the manifest says")
        deleteTree(bundle.folder.at(goldenName))
        #expect(try refusal { _ = try bundle.readGolden() }.message == "b: golden.json is missing")
        let long = testFiles() + [(goldenName, [UInt8](repeating: 0, count: Golden.mostBytes + 1))]
        let large = try ModelBundle.open(writeFiles(withManifest(long), to: folder.url.at("long")))
        let tooLong = try refusal { _ = try large.readGolden() }
        #expect(tooLong.message == "long: golden.json has more than 2097152 bytes")
    }

    private func requireRefused(_ document: JsonObject, _ words: String) throws {
        let error = try refusal { _ = try GoldenCase.parse(document) }
        #expect(error is BundleError)
        #expect(error.message.contains(words), "\(error.message)")
    }
}
