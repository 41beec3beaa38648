import Foundation
import LlamaKit

/// What a user types to fetch a model.
public struct DownloadPlace: Sendable, Equatable {
    /// The hub that `owner/name` means.
    public static let hub = "https://huggingface.co"

    /// An address, or owner/name on the hub.
    public var place = ""

    /// Folder in it; empty: its top.
    public var folder = ""

    /// Secret for the host; empty: the one that is kept, if there is one.
    public var token = ""

    /// Name that the model gets; empty: one made of the address.
    public var name = ""

    public init() {}

    /// Return the address that was typed.
    ///
    /// - Throws: ``BadInput`` if it is neither an address nor a repository
    public func address(_ tokens: any TokenStore) throws -> BundleAddress {
        let typed = trimmed(place)
        let inner = trimmed(folder).trimmingCharacters(in: CharacterSet(charactersIn: "/"))
        let secret = trimmed(token)
        let address: BundleAddress
        if typed.hasPrefix("http://") || typed.hasPrefix("https://") {
            var base = typed
            if base.hasSuffix("/manifest.json") { base.removeLast("/manifest.json".count) }
            while base.hasSuffix("/") { base.removeLast() }
            address = BundleAddress(base: inner.isEmpty ? base : BundleAddress(base: base).of(inner))
        } else {
            address = try BundleAddress.onHub(host: Self.hub, repository: typed, folder: inner)
        }
        let kept = hostOf(address).flatMap { tokens.token(for: $0) }
        return BundleAddress(base: address.base, token: secret.isEmpty ? kept : secret)
    }

    /// Return the name that the model gets.
    ///
    /// - Throws: ``BadInput`` if the one that was typed is none
    public func folderName(_ address: BundleAddress, in library: ModelLibrary) throws -> String {
        let typed = trimmed(name)
        if !typed.isEmpty {
            try requireFolderName(typed)
            return typed
        }
        let path = URL(string: address.base)?.pathComponents ?? []
        // `main` says nothing.
        let parts = path.filter { !["/", "resolve", "main"].contains($0) }
        return library.freeName(parts.suffix(2).joined(separator: "-"))
    }

    private func trimmed(_ text: String) -> String {
        text.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

/// Return the host that a secret is for, or nil.
func hostOf(_ address: BundleAddress) -> String? {
    URL(string: address.base)?.host?.lowercased()
}
