// What LlamaKitExecuTorch uses of ExecuTorch's Swift module, as 1.4.1 declares it; bodies do nothing.
// See README.md.
import Foundation

public enum ModuleLoadMode: Int {
    case file = 0
    case mmap
    case mmapUseMlock
    case mmapUseMlockIgnoreErrors
}

public protocol Scalar {}
extension Int64: Scalar {}
extension Float: Scalar {}

public protocol ValueConvertible {}

public final class Value: NSObject, ValueConvertible {
    public var integer: Int { 0 }
    public func tensor<T: Scalar>() -> Tensor<T>? { nil }
}

public final class Tensor<T: Scalar>: ValueConvertible {
    public convenience init(_ scalars: [T], shape: [Int]) { self.init() }
    public init() {}
    public var shape: [Int] { [] }
    public var count: Int { 0 }
    public func withUnsafeBytes<R>(_ body: (UnsafeBufferPointer<T>) throws -> R) throws -> R {
        try body(UnsafeBufferPointer(start: nil, count: 0))
    }
}

public class Module: NSObject {
    public init(filePath: String, loadMode: ModuleLoadMode = .file) {}
    public func load(_ method: String) throws {}
    public func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] { [] }
    public func forward(_ inputs: [any ValueConvertible]) throws -> [Value] { [] }
}
