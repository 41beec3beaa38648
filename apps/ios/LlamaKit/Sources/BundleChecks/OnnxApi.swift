import COnnxRuntime
import LlamaKit

/// onnxruntime's C functions, with their errors thrown.
///
/// It knows the calls that a step needs, and no model.
final class OnnxApi {
    /// The version of the functions that these checks are written for; newer libraries have it too.
    private static let version: UInt32 = 21

    let functions: OrtApi
    let memory: OpaquePointer
    private let environment: OpaquePointer

    init() throws {
        guard let found = OrtGetApiBase().pointee.GetApi(Self.version) else {
            throw EngineError("this onnxruntime is older than its API \(Self.version)", hint: "")
        }
        functions = found.pointee
        environment = try Self.made(functions) {
            found.pointee.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "BundleChecks", &$0)
        }
        memory = try Self.made(functions) {
            found.pointee.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &$0)
        }
    }

    /// Load a graph, to be run by one thread.
    func session(path: String) throws -> OpaquePointer {
        let options = try made { functions.CreateSessionOptions(&$0) }
        defer { functions.ReleaseSessionOptions(options) }
        try check(functions.SetIntraOpNumThreads(options, 1))
        return try made { functions.CreateSession(environment, path, options, &$0) }
    }

    /// Return a tensor over somebody else's memory.
    func tensor<T>(
        _ numbers: UnsafeMutableBufferPointer<T>, shape: [Int64], type: ONNXTensorElementDataType
    ) throws -> OpaquePointer {
        try made {
            functions.CreateTensorWithDataAsOrtValue(
                memory, numbers.baseAddress, numbers.count * MemoryLayout<T>.stride, shape, shape.count,
                type, &$0)
        }
    }

    func run(
        _ session: OpaquePointer, inputs: [(String, OpaquePointer)], outputs: [(String, OpaquePointer)]
    ) throws {
        let inputNames = inputs.map { strdup($0.0) }
        let outputNames = outputs.map { strdup($0.0) }
        defer { for name in inputNames + outputNames { free(name) } }
        var results = outputs.map { Optional($0.1) }
        try check(
            functions.Run(
                session, nil, inputNames.map { UnsafePointer($0) }, inputs.map { Optional($0.1) },
                inputs.count, outputNames.map { UnsafePointer($0) }, outputs.count, &results))
    }

    func check(_ status: OpaquePointer?) throws {
        try Self.check(functions, status)
    }

    private func made(_ make: (inout OpaquePointer?) -> OpaquePointer?) throws -> OpaquePointer {
        try Self.made(functions, make)
    }

    private static func made(
        _ functions: OrtApi, _ make: (inout OpaquePointer?) -> OpaquePointer?
    ) throws -> OpaquePointer {
        var result: OpaquePointer?
        try check(functions, make(&result))
        guard let result else { throw EngineError("onnxruntime made nothing", hint: "") }
        return result
    }

    private static func check(_ functions: OrtApi, _ status: OpaquePointer?) throws {
        guard let status else { return }
        defer { functions.ReleaseStatus(status) }
        let message = functions.GetErrorMessage(status).map { String(cString: $0) } ?? ""
        throw EngineError("onnxruntime: \(message)", hint: "")
    }
}
