#if canImport(CoreML)
    import CoreML
    import Foundation
    import LlamaKit

    /// A `.mlpackage` of ours in Core ML: compiled once, and stepped by LlamaKit's loop.
    ///
    /// A step is a synchronous prediction, and belongs to the executor that a session has for it: an
    /// asynchronous one would leave that executor and come back for every token.
    public enum CoreMLStepModel {
        /// Return the compiled model of a package, and compile it where that has not been done.
        ///
        /// Compiling takes seconds to a minute and as much room as the model; do it before ``open``.
        ///
        /// - Parameters:
        ///   - package: path of the bundle's `.mlpackage`
        ///   - manifestSha256: SHA-256 of the bundle's manifest.json in hex
        ///   - models: folder of compiled models
        /// - Throws: ``EngineError`` if Core ML refuses the package, or there is no room
        public static func compile(
            _ package: URL, manifestSha256: String, into models: CompiledModels = .inApplicationSupport
        ) async throws -> URL {
            // Not the text of it, which is in the user's language, and its digits as well.
            let version = ProcessInfo.processInfo.operatingSystemVersion
            let system = "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
            return try await models.model(of: package, manifestSha256: manifestSha256, system: system) {
                try await compiled($0)
            }
        }

        /// Load a compiled model, on the executor that will step it.
        ///
        /// - Parameters:
        ///   - compiled: what ``compile`` returned
        ///   - layout: facts of the package, from its manifest
        ///   - maxContext: largest number of positions, at most the package's
        ///   - computeUnits: what computes; int4 weights in groups do not run on the Neural Engine
        /// - Throws: ``EngineError`` if Core ML cannot load it
        public static func open(
            _ compiled: URL, layout: CoreMLLayout, maxContext: Int,
            computeUnits: MLComputeUnits = .cpuAndGPU
        ) throws -> CoreMLLoop {
            let runner = try CoreMLModelRunner(compiled, layout: layout, computeUnits: computeUnits)
            return CoreMLLoop(layout: layout, maxContext: maxContext, runner: runner)
        }

        private static func compiled(_ package: URL) async throws -> URL {
            do {
                return try await MLModel.compileModel(at: package)
            } catch {
                throw EngineError(
                    "Core ML cannot compile \(package.lastPathComponent): \(error.localizedDescription)",
                    hint: "Get the whole bundle again, or export it again with --target coreml.")
            }
        }
    }
#endif
