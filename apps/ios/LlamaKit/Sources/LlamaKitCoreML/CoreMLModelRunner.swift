#if canImport(CoreML)
    import CoreML
    import Foundation
    import LlamaKit

    /// Makes a package's calls with Core ML, and keeps its caches: a state, or arrays in and out.
    final class CoreMLModelRunner: CoreMLRunner {
        private let layout: CoreMLLayout
        private let models: [String: MLModel]
        private let state: MLState?
        private let zeros: Zeros
        private let logits: UnsafeMutableBufferPointer<Float>
        /// Of a package whose caches go in and come out, float16 `[L, 1, K, 1 + positions, D]` each.
        private var caches: [MLMultiArray] = []
        private var held = 0

        init(_ compiled: URL, layout: CoreMLLayout, computeUnits: MLComputeUnits) throws {
            self.layout = layout
            var names: [String?] = [nil]
            if case .fixed = layout.form { names = [CoreMLNames.prefill, CoreMLNames.decode] }
            var models: [String: MLModel] = [:]
            for name in names {
                let configuration = MLModelConfiguration()
                configuration.computeUnits = computeUnits
                configuration.functionName = name
                models[name ?? ""] = try inWords("load \(compiled.lastPathComponent)") {
                    try MLModel(contentsOf: compiled, configuration: configuration)
                }
            }
            self.models = models
            // One state serves both functions: they declare the same buffers.
            state = layout.form == .io ? nil : models.values.first?.makeState()
            zeros = Zeros(count: max(layout.maxContext, layout.layers * layout.heads * layout.headDim))
            logits = .allocate(capacity: layout.vocabSize)
        }

        deinit {
            logits.deallocate()
        }

        func run(_ call: CoreMLCall) throws -> UnsafeBufferPointer<Float> {
            guard let model = models[call.function ?? ""] else {
                throw EngineError("the package has no function \(call.function ?? "main")", hint: "")
            }
            let results = try inWords("run the model over \(call.length) tokens") {
                let inputs = try MLDictionaryFeatureProvider(dictionary: try inputs(of: call))
                guard let state else { return try model.prediction(from: inputs) }
                return try model.prediction(from: inputs, using: state)
            }
            if layout.form == .io {
                caches = try [CoreMLNames.presentKeys, CoreMLNames.presentValues].map {
                    try array($0, of: results, shape: layout.cacheShape(positions: 1 + call.maskColumns))
                }
                held = call.maskColumns
            }
            try readLogits(of: results, rows: call.logitsRows)
            return UnsafeBufferPointer(logits)
        }

        private func inputs(of call: CoreMLCall) throws -> [String: Any] {
            var inputs = [CoreMLNames.inputIds: try int32(call.ids, shape: [1, call.ids.count])]
            switch layout.form {
            case .flexible:
                inputs[CoreMLNames.causalMask] = try zeros.array(shape: [1, 1, 1, call.maskColumns])
            case .fixed:
                inputs[CoreMLNames.position] = try int32([Int32(call.position)], shape: [1])
                if call.function == CoreMLNames.prefill {
                    inputs[CoreMLNames.length] = try int32([Int32(call.length)], shape: [1])
                }
            case .io:
                try rewindCaches(to: call.position)
                inputs[CoreMLNames.keyCache] = caches[0]
                inputs[CoreMLNames.valueCache] = caches[1]
            }
            return inputs
        }

        /// Leave the empty first row and so many positions; the arrays that came out go in as they are.
        private func rewindCaches(to position: Int) throws {
            if position == 0 {
                let empty = layout.cacheShape(positions: 1)
                caches = try (0..<2).map { _ in try zeros.array(shape: empty) }
            } else if position < held {
                caches = try caches.map { try shortened($0, to: position) }
            }
            held = position
        }

        private func shortened(_ cache: MLMultiArray, to position: Int) throws -> MLMultiArray {
            let source = try contiguous(cache)
            let shape = layout.cacheShape(positions: 1 + position)
            let rows = try MLMultiArray(shape: shape as [NSNumber], dataType: .float16)
            source.withUnsafeBytes { from in
                rows.withUnsafeMutableBytes { into, _ in
                    copyRows(
                        of: from.bindMemory(to: UInt16.self), layout: layout, held: 1 + held,
                        kept: 1 + position, into: into.bindMemory(to: UInt16.self))
                }
            }
            return rows
        }

        private func readLogits(of results: any MLFeatureProvider, rows: Int) throws {
            let all = try contiguous(
                array(CoreMLNames.logits, of: results, shape: [1, rows, layout.vocabSize]))
            all.withUnsafeBytes { bytes in
                let halves = bytes.bindMemory(to: UInt16.self)
                let last = (rows - 1) * layout.vocabSize
                widen(UnsafeBufferPointer(rebasing: halves[last..<last + layout.vocabSize]), into: logits)
            }
        }

        private func array(
            _ name: String, of results: any MLFeatureProvider, shape: [Int]
        ) throws -> MLMultiArray {
            let found = results.featureValue(for: name)?.multiArrayValue
            guard let found, found.shape.map(\.intValue) == shape, found.dataType == .float16 else {
                let what = found.map { "\($0.shape.map(\.intValue)) of type \($0.dataType)" } ?? "nothing"
                throw BundleError(
                    "the package's output \(name): expected float16 \(shape), found \(what)",
                    hint: "Export the model again with --target coreml.")
            }
            return found
        }

        /// Return an array whose numbers lie one behind the other: itself, as a rule.
        private func contiguous(_ array: MLMultiArray) throws -> MLMultiArray {
            if array.strides.map(\.intValue) == strides(of: array.shape.map(\.intValue)) { return array }
            let copy = try MLMultiArray(shape: array.shape, dataType: .float16)
            array.transfer(to: copy)
            return copy
        }

        private func int32(_ numbers: [Int32], shape: [Int]) throws -> MLMultiArray {
            let array = try MLMultiArray(shape: shape as [NSNumber], dataType: .int32)
            array.withUnsafeMutableBytes { bytes, _ in
                numbers.withUnsafeBytes { bytes.copyMemory(from: $0) }
            }
            return array
        }
    }

    /// float16 zeros that arrays of any shape share, without a copy; Core ML only reads its inputs.
    private final class Zeros {
        private let halves: UnsafeMutableBufferPointer<UInt16>

        init(count: Int) {
            halves = .allocate(capacity: count)
            halves.initialize(repeating: 0)
        }

        deinit {
            halves.deallocate()
        }

        func array(shape: [Int]) throws -> MLMultiArray {
            guard let start = halves.baseAddress, shape.reduce(1, *) <= halves.count else {
                throw EngineError("there are not so many zeros: \(shape)", hint: "")
            }
            return try MLMultiArray(
                dataPointer: start, shape: shape as [NSNumber], dataType: .float16,
                strides: strides(of: shape) as [NSNumber],
                // Core ML may hold an input for a while; the zeros live as long.
                deallocator: { _ in withExtendedLifetime(self) {} })
        }
    }

    /// Return the strides of numbers that lie one behind the other, the last axis first.
    private func strides(of shape: [Int]) -> [Int] {
        var strides = [Int](repeating: 1, count: shape.count)
        for axis in stride(from: shape.count - 2, through: 0, by: -1) {
            strides[axis] = strides[axis + 1] * shape[axis + 1]
        }
        return strides
    }

    private func inWords<T>(_ what: String, _ act: () throws -> T) throws -> T {
        do {
            return try act()
        } catch let error as any AppError {
            throw error
        } catch {
            throw EngineError(
                "Core ML cannot \(what): \(error.localizedDescription)",
                hint: "Close other apps or choose a shorter context; if it stays, get the bundle again.")
        }
    }
#endif
