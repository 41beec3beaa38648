// What the app uses of localized texts, as Apple documents them; see README.md.
@_exported import Foundation
@_exported import Observation

/// A key with values. The app's rule is in the overloads: texts, and whole numbers that say so.
public struct LocalizedStringKey: ExpressibleByStringInterpolation, Equatable, Sendable {
    public struct StringInterpolation: StringInterpolationProtocol {
        public init(literalCapacity: Int, interpolationCount: Int) {}
        public mutating func appendLiteral(_ literal: String) {}
        public mutating func appendInterpolation(_ text: String) {}
        public mutating func appendInterpolation(_ number: Int, specifier: String) {}
    }

    public init(_ value: String) {}
    public init(stringLiteral value: String) {}
    public init(stringInterpolation: StringInterpolation) {}
}

extension String {
    public struct LocalizationValue: ExpressibleByStringInterpolation, Sendable {
        public typealias StringInterpolation = LocalizedStringKey.StringInterpolation
        public init(stringLiteral value: String) {}
        public init(stringInterpolation: StringInterpolation) {}
    }

    public init(localized key: String.LocalizationValue) { self = "" }
}

/// What Linux' Foundation has not of numbers and bytes as people read them.
public struct ByteCountFormatStyle: Sendable {
    public enum Style: Sendable { case file, memory, decimal, binary }
    public static func byteCount(style: Style) -> ByteCountFormatStyle { ByteCountFormatStyle() }
}

extension Int64 {
    public func formatted(_ style: ByteCountFormatStyle) -> String { "" }
}

extension URL {
    public static var applicationSupportDirectory: URL { URL(fileURLWithPath: "") }
    public static var documentsDirectory: URL { URL(fileURLWithPath: "") }
}
