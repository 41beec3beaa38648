/// Where a bundle comes from.
public struct BundleAddress: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    /// Address of its folder.
    public let base: String

    /// Secret for that host; nil: none.
    public let token: String?

    /// Name the address of a bundle's folder, and a secret for its host.
    public init(base: String, token: String? = nil) {
        self.base = base
        self.token = token
    }

    /// Return the address of a folder in a repository of the Hugging Face Hub.
    ///
    /// - Parameters:
    ///   - host: address of the hub
    ///   - repository: owner and name, such as `me/my-model-onnx`
    ///   - folder: path of the bundle in it; empty: the top
    ///   - revision: branch, tag or commit
    ///   - token: secret for the hub; nil: none
    /// - Throws: ``BadInput`` if the repository is no owner and name, or the folder no path
    public static func onHub(
        host: String, repository: String, folder: String, revision: String = "main", token: String? = nil
    ) throws -> BundleAddress {
        let parts = pathParts(repository)
        if parts.count != 2 || parts.contains(where: { pathFault($0) != nil }) {
            throw BadInput(
                "'\(repository)' is no repository", hint: "Give owner/name, as its page has it.",
                kind: .address)
        }
        if !folder.isEmpty, let fault = pathFault(folder) {
            throw BadInput("the folder '\(folder)' \(fault)", hint: "Give its path in it.", kind: .address)
        }
        let place = parts.map(escaped).joined(separator: "/")
        let inner = pathParts(folder).filter { !$0.isEmpty }.map { "/" + escaped($0) }.joined()
        let base = "\(withoutSlashes(host))/\(place)/resolve/\(escaped(revision))\(inner)"
        return BundleAddress(base: base, token: token)
    }

    /// Return the address of a file of the bundle.
    public func of(_ path: String) -> String {
        Self.withoutSlashes(base) + "/" + pathParts(path).map(Self.escaped).joined(separator: "/")
    }

    // The token is a secret, and messages, logs and dumps show addresses.
    public var description: String { "BundleAddress(base: \(base))" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["base": base]) }

    private static let unreserved = Set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~".utf8)

    private static func escaped(_ part: String) -> String {
        part.utf8.map { unreserved.contains($0) ? String(UnicodeScalar($0)) : "%" + hex([$0]) }.joined()
    }

    private static func withoutSlashes(_ address: String) -> String {
        var bytes = Array(address.utf8)
        while bytes.last == UInt8(ascii: "/") { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }
}
