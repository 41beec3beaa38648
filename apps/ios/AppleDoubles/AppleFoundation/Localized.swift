// What the app uses of Foundation on Apple's systems and Linux' Foundation lacks; bodies do nothing.
// See README.md.
import Foundation

public protocol _FormatSpecifiable: Equatable {}
extension Int: _FormatSpecifiable {}
extension Int64: _FormatSpecifiable {}
extension Double: _FormatSpecifiable {}

public struct LocalizedStringResource: Equatable, Sendable, ExpressibleByStringInterpolation {
    public init(stringLiteral value: String) {}
    public init(stringInterpolation: String.LocalizationValue.StringInterpolation) {}
}

extension String {
    public struct LocalizationValue: Equatable, Sendable, ExpressibleByStringInterpolation {
        public init(stringLiteral value: String) {}
        public init(stringInterpolation: StringInterpolation) {}

        public struct StringInterpolation: StringInterpolationProtocol, Sendable {
            public init(literalCapacity: Int, interpolationCount: Int) {}
            public mutating func appendLiteral(_ literal: String) {}
            public mutating func appendInterpolation(_ string: String) {}
            public mutating func appendInterpolation(_ substring: Substring) {}
            public mutating func appendInterpolation<T: _FormatSpecifiable>(_ value: T) {}
            public mutating func appendInterpolation<T: _FormatSpecifiable>(
                _ value: T, specifier: String
            ) {}
        }
    }

    public init(
        localized keyAndValue: String.LocalizationValue, table: String? = nil, bundle: Bundle? = nil,
        locale: Locale = .current, comment: StaticString? = nil
    ) {
        self = ""
    }

    public init(localized resource: LocalizedStringResource) { self = "" }
}

extension URL {
    public static var applicationSupportDirectory: URL { URL(fileURLWithPath: "") }
    public static var documentsDirectory: URL { URL(fileURLWithPath: "") }
}

extension ProcessInfo {
    public enum ThermalState: Int, Sendable {
        case nominal = 0
        case fair = 1
        case serious = 2
        case critical = 3
    }

    public var thermalState: ThermalState { .nominal }
}
