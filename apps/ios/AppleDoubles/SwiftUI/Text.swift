// Texts, their keys and how things are drawn, as the iOS 18 SDK's SwiftUI declares them. See ../README.md.

public struct LocalizedStringKey: Equatable, ExpressibleByStringInterpolation {
    public init(_ value: String) {}
    public init(stringLiteral value: String) {}
    public init(stringInterpolation: StringInterpolation) {}

    public struct StringInterpolation: StringInterpolationProtocol {
        public init(literalCapacity: Int, interpolationCount: Int) {}
        public mutating func appendLiteral(_ literal: String) {}
        public mutating func appendInterpolation(_ string: String) {}
        public mutating func appendInterpolation<T: _FormatSpecifiable>(_ value: T) {}
        public mutating func appendInterpolation<T: _FormatSpecifiable>(
            _ value: T, specifier: String
        ) {}
    }
}

public struct Text: Equatable, Sendable {
    nonisolated public init(
        _ key: LocalizedStringKey, tableName: String? = nil, bundle: Bundle? = nil,
        comment: StaticString? = nil
    ) {}
    nonisolated public init(_ resource: LocalizedStringResource) {}
    @_disfavoredOverload
    nonisolated public init<S: StringProtocol>(_ content: S) {}
    nonisolated public init(verbatim content: String) {}
}

extension Text: View {
    public typealias Body = Never
    public var body: Never { fatalError() }
}

extension Text {
    nonisolated public func font(_ font: Font?) -> Text { self }
    nonisolated public func foregroundStyle<S: ShapeStyle>(_ style: S) -> Text { self }
}

public enum TextAlignment: Hashable, CaseIterable, Sendable {
    case leading
    case center
    case trailing
}

public struct Font: Hashable, Sendable {
    public static var body: Font { Font() }
    public static var callout: Font { Font() }
    public static var caption: Font { Font() }
    public static var footnote: Font { Font() }
    public static var headline: Font { Font() }
}

@MainActor
@preconcurrency
public struct Image: View, Sendable {
    public enum Scale: Hashable, Sendable {
        case small
        case medium
        case large
    }

    nonisolated public init(systemName: String) {}
    public var body: Never { fatalError() }
}

public protocol ShapeStyle: Sendable {}

// swift-format-ignore: DontRepeatTypeInStaticProperties
public struct Color: Hashable, ShapeStyle, View {
    public static var accentColor: Color { Color() }
    public static var primary: Color { Color() }
    public static var secondary: Color { Color() }
    public static var green: Color { Color() }
    public static var red: Color { Color() }
    public var body: Never { fatalError() }
    nonisolated init() {}
    public func opacity(_ opacity: Double) -> Color { self }
}

public struct HierarchicalShapeStyle: ShapeStyle {}

extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var primary: HierarchicalShapeStyle { HierarchicalShapeStyle() }
    public static var secondary: HierarchicalShapeStyle { HierarchicalShapeStyle() }
}

extension ShapeStyle where Self == Color {
    public static var green: Color { Color() }
    public static var red: Color { Color() }
}

public struct Material: ShapeStyle {}

extension ShapeStyle where Self == Material {
    public static var bar: Material { Material() }
}

public protocol Shape: View, Sendable {}
public protocol InsettableShape: Shape {}

public enum RoundedCornerStyle: Sendable {
    case circular
    case continuous
}

public struct RoundedRectangle: InsettableShape {
    nonisolated public init(cornerRadius: CGFloat, style: RoundedCornerStyle = .continuous) {}
    nonisolated public var body: Never { fatalError() }
}

public struct FillStyle: Equatable, Sendable {
    public init(eoFill: Bool = false, antialiased: Bool = true) {}
}
