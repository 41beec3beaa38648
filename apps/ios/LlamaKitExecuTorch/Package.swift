// swift-tools-version: 6.0
import PackageDescription

// A package of its own, so that an app with Core ML alone fetches nothing.
let package = Package(
    name: "LlamaKitExecuTorch",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [.library(name: "LlamaKitExecuTorch", targets: ["LlamaKitExecuTorch"])],
    dependencies: [
        .package(path: "../LlamaKit"),
        // The exporter's version: a newer program does not load in an older runtime.
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.4.1"),
    ],
    targets: [
        .target(
            name: "LlamaKitExecuTorch",
            dependencies: [
                "LlamaKit",
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "kernels_quantized", package: "executorch"),
                .product(name: "kernels_llm", package: "executorch"),
            ],
            // The kernels register themselves, and a linker drops what nobody names.
            linkerSettings: [.unsafeFlags(["-Wl,-all_load"])]
        )
    ]
)
