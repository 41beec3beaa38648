// What the app uses of UniformTypeIdentifiers, as Apple documents it; see README.md.
public struct UTType: Sendable, Hashable {
    public static var folder: UTType { UTType() }
    public static var zip: UTType { UTType() }
}
