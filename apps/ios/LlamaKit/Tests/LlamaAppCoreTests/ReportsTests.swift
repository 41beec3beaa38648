import Foundation
import Testing

@testable import LlamaAppCore
@testable import LlamaKit

@MainActor
struct ReportsTests {
    @Test func aBundleWithoutGoldenDataSaysSo() async throws {
        let app = try FakeApp()
        #expect(await app.parts.reports.verify() == false)
        try await app.loaded()
        #expect(await app.parts.reports.verify())
        guard case .noGolden = app.parts.reports.report?.result else {
            Issue.record("\(String(describing: app.parts.reports.report))")
            return
        }
        #expect(app.parts.reports.running == nil)
        #expect(app.host.state.isReady)
    }

    @Test func whatTheExporterSawIsComparedAndReported() async throws {
        for isRight in [true, false] {
            let app = try FakeApp()
            let bundle = try app.push("one")
            try addGolden(bundle.folder, isRight: isRight)
            await app.parts.askToLoad(try ModelBundle.open(bundle.folder))
            await app.parts.reports.verify()
            let report = try #require(app.parts.reports.report)
            guard case .verified(let verdict) = report.result else {
                Issue.record("\(report)")
                continue
            }
            #expect(verdict.isGreen == isRight)
            let json = try String(contentsOf: #require(report.file), encoding: .utf8)
            #expect(json.contains("\"runtime\""))
            #expect(json.contains("Fake 1"))
        }
    }

    @Test func aModelIsMeasuredAndThereAgain() async throws {
        let app = try FakeApp()
        try await app.loaded()
        #expect(await app.parts.reports.measure(isQuick: true))
        guard case .measured(let found) = app.parts.reports.report?.result else {
            Issue.record("\(String(describing: app.parts.reports.report))")
            return
        }
        #expect(found.residentBytes == 123)
        #expect(found.thermalAfter == "fair")
        let file = try #require(app.parts.reports.report?.file)
        let json = try parseJson([UInt8](Data(contentsOf: file)), where: "report").fields(where: "report")
        #expect(try json.text("device") == "Fake 1")
        #expect(app.host.state.isReady)
        #expect(app.engines.now.living == 1)
        app.session.draft = "x"
        app.session.send()
        #expect(await app.answered())
        #expect(app.session.conversation.turns.count == 2)
    }

    @Test func aMeasurementEndsWhereTheAppLeavesTheScreen() async throws {
        let app = try FakeApp()
        app.engines.change { $0.stepSeconds = 0.003 }
        try await app.loaded()
        let measuring = Task { await app.parts.reports.measure(isQuick: true) }
        #expect(await app.until { (app.parts.reports.running?.done ?? 0) > 0 })
        app.parts.change(to: .inactive)
        app.parts.change(to: .active)
        _ = await measuring.value
        guard case .stopped = app.parts.reports.report?.result else {
            Issue.record("\(String(describing: app.parts.reports.report))")
            return
        }
        #expect(app.host.state.isReady)
    }
}

/// Put golden data into a bundle: what the fake computes after one call, or something else.
private func addGolden(_ folder: URL, isRight: Bool) throws {
    // After the token that asks, the fake's logits are 50 for "Y" and 0 for the 257 others.
    let other = log(1 / (exp(50.0) + 257))
    let top = isRight ? "[[89, 0.0], [1, \(other)]]" : "[[1, 0.0], [89, \(other)]]"
    let golden = """
        {"format_version": 1, "target": "coreml", "runtime": "test", "prompt_ids": [65, 256],
         "rewind": {"to": 1, "ids": [66, 256]},
         "limits": {"kl_mean": 0.01, "kl_worst": 0.1, "margin": 0.5},
         "positions": [{"text": "prompt", "from": 0, "at": 1, "top": \(top),
                        "rest_logprob": \(other + log(256.0))}]}
        """
    let content = Array(golden.utf8)
    try Data(content).write(to: folder.appendingPathComponent("golden.json"))
    let place = folder.appendingPathComponent("manifest.json")
    let manifest = try String(contentsOf: place, encoding: .utf8)
    let entry = "{\"sha256\": \"\(Sha256.hex(of: content))\", \"size_bytes\": \(content.count)}"
    let whole = manifest.replacingOccurrences(
        of: "\"files\": {", with: "\"files\": {\"golden.json\": \(entry), ")
    try Data(whole.utf8).write(to: place)
}
