// What the app uses of AppKit, as the macOS 15 SDK declares it; bodies do nothing. See README.md.
@_exported import Foundation

open class NSPasteboard: NSObject {
    public struct PasteboardType: Hashable, RawRepresentable, Sendable {
        public var rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }
        public static let string = PasteboardType(rawValue: "")
    }

    open class var general: NSPasteboard { NSPasteboard() }

    @discardableResult
    open func clearContents() -> Int { 0 }

    @discardableResult
    open func setString(_ string: String, forType dataType: NSPasteboard.PasteboardType) -> Bool { true }
}
