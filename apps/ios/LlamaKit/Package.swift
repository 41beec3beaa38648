// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "LlamaKit",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [.library(name: "LlamaKit", targets: ["LlamaKit"])],
    targets: [
        .target(name: "LlamaKit"),
        .testTarget(name: "LlamaKitTests", dependencies: ["LlamaKit"]),
    ]
)
