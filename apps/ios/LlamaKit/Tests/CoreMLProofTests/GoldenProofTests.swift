#if canImport(CoreML)
    import CoreML
    import Foundation
    import LlamaKit
    import LlamaKitCoreML
    import Testing

    /// Core ML itself over the bundle that LLAMA_COREML_BUNDLE names, so on a Mac alone.
    struct GoldenProofTests {
        private func folder() throws -> URL {
            let path = try #require(ProcessInfo.processInfo.environment["LLAMA_COREML_BUNDLE"])
            return URL(fileURLWithPath: path, isDirectory: true)
        }

        private func session(_ units: MLComputeUnits) async throws -> (ModelBundle, ChatSession) {
            let bundle = try ModelBundle.open(folder())
            let manifest = bundle.manifest
            let layout = try bundle.coreMLLayout()
            let models = CompiledModels(
                folder: FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString))
            let compiled = try await CoreMLStepModel.compile(
                bundle.artifact, manifestSha256: ModelBundle.manifestSha256(bundle.folder), into: models)
            let format =
                try manifest.chat.map { try ChatFormat($0, vocabSize: manifest.vocabSize) } ?? .unknown
            let model = ChatModel(
                tokenizer: try loadTokenizer(bundle.folder), format: format, stopIds: manifest.stopIds)
            let session = try await ChatSession(model) {
                try CoreMLStepModel.open(
                    compiled, layout: layout, maxContext: manifest.maxContext, computeUnits: units)
            }
            return (bundle, session)
        }

        // What a runner's virtual machine has of a GPU is not what a device has.
        @Test(arguments: [MLComputeUnits.cpuOnly, .cpuAndGPU])
        func thisMacComputesWhatTheExporterDid(_ units: MLComputeUnits) async throws {
            let (bundle, session) = try await session(units)
            let golden = try #require(try bundle.readGolden())
            let measured = try await session.use { cache in try golden.run(cache) }
            let verdict = golden.judge(try #require(measured))
            #expect(verdict.isGreen, "\(verdict)")
            await session.close()
        }

        @Test func aConversationGoesOnOverTheState() async throws {
            let (_, session) = try await session(.cpuOnly)
            let settings = try WriteSettings(sampling: .greedy, maxTokens: 24)
            var answers: [String] = []
            for _ in 0..<2 {
                var text = ""
                for try await piece in session.write(after: "Once upon a time", settings) {
                    if case .text(let more) = piece { text += more }
                }
                answers.append(text)
            }
            #expect(!answers[0].isEmpty)
            #expect(answers[0] == answers[1])
            await session.close()
        }
    }
#endif
