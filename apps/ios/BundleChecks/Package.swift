// swift-tools-version: 6.0
import PackageDescription

// Runs LlamaKit on real bundles, on Linux: tools/apps/check_ios.py makes what it needs. No app has it.
// LLAMA_ONNXRUNTIME is a folder with onnxruntime's library and its headers.
let runtime = Context.environment["LLAMA_ONNXRUNTIME"] ?? "/usr/lib"

let package = Package(
    name: "BundleChecks",
    platforms: [.macOS(.v15)],
    dependencies: [.package(path: "../LlamaKit")],
    targets: [
        .systemLibrary(name: "COnnxRuntime"),
        .target(
            name: "BundleChecks",
            dependencies: ["LlamaKit", "COnnxRuntime"],
            linkerSettings: [.unsafeFlags(["-L\(runtime)", "-Xlinker", "-rpath", "-Xlinker", runtime])]
        ),
        .testTarget(name: "BundleChecksTests", dependencies: ["BundleChecks", "LlamaKit"]),
    ]
)
