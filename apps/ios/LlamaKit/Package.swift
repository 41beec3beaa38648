// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "LlamaKit",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [
        .library(name: "LlamaKit", targets: ["LlamaKit"]),
        .library(name: "LlamaKitCoreML", targets: ["LlamaKitCoreML"]),
        // What the sample app does, without its screens.
        .library(name: "LlamaAppCore", targets: ["LlamaAppCore"]),
    ],
    targets: [
        .target(name: "LlamaKit"),
        // Empty where there is no Core ML.
        .target(name: "LlamaKitCoreML", dependencies: ["LlamaKit"]),
        .target(name: "LlamaAppCore", dependencies: ["LlamaKit"]),
        .testTarget(name: "LlamaKitTests", dependencies: ["LlamaKit"]),
        .testTarget(name: "LlamaAppCoreTests", dependencies: ["LlamaAppCore", "LlamaKit"]),
    ]
)

// Real bundles on Linux, for tools/apps/check_ios.py alone: LLAMA_ONNXRUNTIME is the folder of
// onnxruntime's library.
if let runtime = Context.environment["LLAMA_ONNXRUNTIME"] {
    package.targets += [
        .systemLibrary(name: "COnnxRuntime"),
        .target(
            name: "BundleChecks", dependencies: ["LlamaKit", "COnnxRuntime"],
            linkerSettings: [.unsafeFlags(["-L\(runtime)", "-Xlinker", "-rpath", "-Xlinker", runtime])]),
        .testTarget(name: "BundleChecksTests", dependencies: ["BundleChecks", "LlamaKit"]),
    ]
}

// Core ML itself, on a Mac: LLAMA_COREML_BUNDLE is the folder of a bundle.
if Context.environment["LLAMA_COREML_BUNDLE"] != nil {
    package.targets += [
        .testTarget(name: "CoreMLProofTests", dependencies: ["LlamaKit", "LlamaKitCoreML"])
    ]
}
