// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "LlamaKit",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [
        .library(name: "LlamaKit", targets: ["LlamaKit"]),
        .library(name: "LlamaKitCoreML", targets: ["LlamaKitCoreML"]),
    ],
    targets: [
        .target(name: "LlamaKit"),
        // Empty where there is no Core ML.
        .target(name: "LlamaKitCoreML", dependencies: ["LlamaKit"]),
        .testTarget(name: "LlamaKitTests", dependencies: ["LlamaKit"]),
    ]
)
