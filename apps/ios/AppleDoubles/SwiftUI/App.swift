// Apps and their windows, as the iOS 18 SDK's SwiftUI declares them. See ../README.md.

@MainActor
@preconcurrency
public protocol App {
    associatedtype Body: Scene

    @SceneBuilder
    @MainActor
    @preconcurrency
    var body: Self.Body { get }

    @MainActor
    @preconcurrency
    init()
}

extension App {
    @MainActor
    @preconcurrency
    public static func main() {}
}

@MainActor
@preconcurrency
public protocol Scene {
    associatedtype Body: Scene

    @SceneBuilder
    @MainActor
    @preconcurrency
    var body: Self.Body { get }
}

extension Never: Scene {}

@resultBuilder
public struct SceneBuilder {
    public static func buildExpression<Content: Scene>(_ content: Content) -> Content { content }
    public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content }
}

@MainActor
@preconcurrency
public struct WindowGroup<Content: View>: Scene {
    nonisolated public init(@ViewBuilder content: () -> Content) {}
    public var body: Never { fatalError() }
}

public enum ScenePhase: Comparable, Hashable, Sendable {
    case background
    case inactive
    case active
}
