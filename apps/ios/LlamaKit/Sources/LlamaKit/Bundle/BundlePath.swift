import Foundation

/// Name of the file that makes a folder a bundle.
public let manifestName = "manifest.json"

private let mostPathUnits = 1024

/// Return why a path may not stand in a manifest or an archive, or nil where it may.
///
/// A path must be relative, lead to a file inside the folder and mean the same on every system: no
/// `..`, no backslash, no drive letter, no control character.
public func pathFault(_ path: String) -> String? {
    // By bytes: a letter and what is combined with it are one Character, and would hide a slash.
    let bytes = Array(path.utf8)
    let parts = pathParts(path)
    if bytes.isEmpty { return "is empty" }
    if path.utf16.count > mostPathUnits { return "is longer than \(mostPathUnits) characters" }
    if bytes[0] == UInt8(ascii: "/") || bytes[0] == UInt8(ascii: "~") { return "is not relative" }
    if parts.contains("..") { return "leads out of the folder" }
    if parts.contains(where: { $0.isEmpty || $0 == "." }) { return "has an empty part or a '.'" }
    if bytes.contains(UInt8(ascii: "\\")) || bytes.contains(UInt8(ascii: ":")) {
        return "holds a backslash or a colon"
    }
    if bytes.contains(where: { $0 < 0x20 || $0 == 0x7f }) {
        return "holds a control character or half a surrogate pair"
    }
    return sameBytes(path, manifestName) ? "is the manifest itself" : nil
}

/// Return the parts of a path between its slashes.
func pathParts(_ path: String) -> [String] {
    path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        .map { String(decoding: $0, as: UTF8.self) }
}

/// Return a name without its ending, or nil where it has another one or nothing before it.
func withoutEnding(_ name: String, _ ending: String) -> String? {
    let bytes = Array(name.utf8)
    let kept = bytes.count - ending.utf8.count
    guard kept > 0, bytes[kept...].elementsEqual(ending.utf8) else { return nil }
    return String(decoding: bytes[..<kept], as: UTF8.self)
}

extension URL {
    /// Return the file of a path that ``pathFault(_:)`` has nothing against.
    func at(_ path: String) -> URL {
        URL(fileURLWithPath: self.path + "/" + path, isDirectory: false)
    }
}
