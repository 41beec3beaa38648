import Foundation
import LlamaKit

/// A connection to tools/apps/bundle_server.py, which runs bundles that nothing on Linux loads into Swift.
final class ServedBundle {
    let vocabSize: Int
    let maxContext: Int
    private let descriptor: Int32
    private let logits: UnsafeMutableBufferPointer<Float>

    /// - Parameters:
    ///   - kind: `step` or `calls`
    ///   - name: folder of the bundle below the fixtures
    init(_ kind: String, _ name: String) throws {
        guard let port = ProcessInfo.processInfo.environment["LLAMA_BUNDLE_SERVER"].flatMap(UInt16.init)
        else { throw EngineError("LLAMA_BUNDLE_SERVER is not set", hint: "Run tools/apps/check_ios.py.") }
        let descriptor = try Self.connected(to: port)
        try Self.send(descriptor, Array("\(kind) \(name)\n".utf8))
        var sizes: [Int32] = [0, 0]
        try sizes.withUnsafeMutableBytes { try Self.receive(descriptor, $0) }
        self.descriptor = descriptor
        vocabSize = Int(sizes[0])
        maxContext = Int(sizes[1])
        logits = .allocate(capacity: vocabSize)
        logits.initialize(repeating: 0)
    }

    deinit {
        close(descriptor)
        logits.deallocate()
    }

    /// Send numbers and return the logits `[V]` that come back.
    func ask(_ numbers: [Int32]) throws -> UnsafeBufferPointer<Float> {
        try numbers.withUnsafeBytes { try Self.send(descriptor, Array($0)) }
        try Self.receive(descriptor, UnsafeMutableRawBufferPointer(logits))
        return UnsafeBufferPointer(logits)
    }

    private static func connected(to port: UInt16) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { throw EngineError("nobody listens on port \(port)", hint: "") }
        return descriptor
    }

    private static func send(_ descriptor: Int32, _ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { throw EngineError("the server is gone", hint: "") }
            sent += count
        }
    }

    private static func receive(_ descriptor: Int32, _ bytes: UnsafeMutableRawBufferPointer) throws {
        var received = 0
        while received < bytes.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[received...])
            let count = read(descriptor, rest.baseAddress, rest.count)
            guard count > 0 else { throw EngineError("the server ended the connection", hint: "") }
            received += count
        }
    }
}

/// A bundle that Python's own runtime steps.
public final class ServedStepModel: StepModel {
    public let vocabSize: Int
    public let maxContext: Int
    private let bundle: ServedBundle
    private var written = 0

    public init(_ name: String) throws {
        bundle = try ServedBundle("step", name)
        vocabSize = bundle.vocabSize
        maxContext = bundle.maxContext
    }

    public func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        try requireTokens(ids, at: position, held: written)
        let logits = try bundle.ask([Int32(ids.count), Int32(position)] + ids)
        written = position + ids.count
        return logits
    }
}

/// A Core ML package in Python's evaluator, which makes the calls that LlamaKit's loop plans.
public final class ServedCoreMLRunner: CoreMLRunner {
    private let bundle: ServedBundle
    public private(set) var calls: [CoreMLCall] = []

    public init(_ name: String) throws {
        bundle = try ServedBundle("calls", name)
    }

    public func run(_ call: CoreMLCall) throws -> UnsafeBufferPointer<Float> {
        calls.append(call)
        let function: Int32 = call.function.map { $0 == CoreMLNames.prefill ? 1 : 2 } ?? 0
        let numbers = [call.ids.count, call.position, call.length, call.maskColumns].map(Int32.init)
        return try bundle.ask([numbers[0], function] + numbers[1...] + call.ids)
    }
}
