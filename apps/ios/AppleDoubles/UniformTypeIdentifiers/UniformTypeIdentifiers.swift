// What the app uses of UniformTypeIdentifiers, as the iOS 18 SDK declares it; bodies do nothing.
// See README.md.
public struct UTType: Hashable, Sendable {
    public static var folder: UTType { UTType() }
    public static var zip: UTType { UTType() }
}
