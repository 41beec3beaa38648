// What LlamaKitCoreML uses of Core ML, as the iOS 18 SDK declares it; bodies do nothing. See README.md.
import Foundation

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly = 0
    case cpuAndGPU = 1
    case all = 2
    case cpuAndNeuralEngine = 3
}

open class MLModelConfiguration: NSObject {
    open var computeUnits: MLComputeUnits = .all
    open var functionName: String?
    open var modelDisplayName: String?
}

public enum MLMultiArrayDataType: Int, Sendable {
    case double = 65600
    case float32 = 65568
    case float16 = 65552
    case int32 = 131104
}

open class MLMultiArray: NSObject {
    open var dataType: MLMultiArrayDataType { .float16 }
    open var shape: [NSNumber] { [] }
    open var strides: [NSNumber] { [] }
    open var count: Int { 0 }

    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {}

    public init(
        dataPointer: UnsafeMutableRawPointer, shape: [NSNumber], dataType: MLMultiArrayDataType,
        strides: [NSNumber], deallocator: ((UnsafeMutableRawPointer) -> Void)?
    ) throws {}

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(start: nil, count: 0))
    }

    public func withUnsafeMutableBytes<R>(
        _ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R
    ) rethrows -> R {
        try body(UnsafeMutableRawBufferPointer(start: nil, count: 0), [])
    }

    public func transfer(to destinationMultiArray: MLMultiArray) {}
}

open class MLFeatureValue: NSObject, @unchecked Sendable {
    public init(multiArray value: MLMultiArray) {}
    open var multiArrayValue: MLMultiArray? { nil }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    open var featureNames: Set<String> { [] }
    open func featureValue(for featureName: String) -> MLFeatureValue? { nil }
}

public final class MLState: NSObject, Sendable {}

open class MLPredictionOptions: NSObject {}

open class MLModel: NSObject {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {}

    public class func load(
        contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
    ) async throws -> MLModel {
        try MLModel(contentsOf: url, configuration: configuration)
    }

    public class func compileModel(at url: URL) async throws -> URL { url }

    public func makeState() -> MLState { MLState() }

    open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { input }

    open func prediction(
        from input: any MLFeatureProvider, using state: MLState
    ) throws -> any MLFeatureProvider {
        input
    }

    public func prediction(
        from input: any MLFeatureProvider, using state: MLState,
        options: MLPredictionOptions = MLPredictionOptions()
    ) async throws -> any MLFeatureProvider {
        input
    }
}
