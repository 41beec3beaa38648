import Foundation

@testable import LlamaKit

/// The root of the repository.
let repository: URL = (0..<6).reduce(URL(fileURLWithPath: #filePath)) { folder, _ in
    folder.deletingLastPathComponent()
}

/// A failure of a test's own data.
struct BadVectors: Error, CustomStringConvertible {
    let description: String
}

/// A file of apps/shared/vectors, which the Python side writes in some format.
struct Vectors {
    let top: JsonFields

    init(_ name: String, format: Int = 1) throws {
        let file = repository.appending(path: "apps/shared/vectors/\(name)")
        top = try parseJson([UInt8](Data(contentsOf: file)), where: name).fields(where: name)
        if try top.int("format_version") != format {
            throw BadVectors(description: "\(name) has another format")
        }
    }

    func fields(_ key: String) throws -> JsonFields { try top.fields(key) }

    func ints(_ key: String) throws -> [Int32] { try top.ints(key) }

    func texts(_ key: String) throws -> [String] { try top.texts(key) }

    /// Return the entries of a list; there is at least one.
    func entries(_ key: String) throws -> [JsonFields] {
        let entries = try top.list(key).map { try $0.fields(where: key) }
        if entries.isEmpty { throw BadVectors(description: "\(key) is empty") }
        return entries
    }

    /// Check each entry of a list; there is at least one, and an error names it.
    func each(_ key: String, _ check: (JsonFields) throws -> Void) throws {
        for entry in try entries(key) {
            do {
                try check(entry)
            } catch {
                throw BadVectors(description: "\(key): \(try entry.text("name")): \(error)")
            }
        }
    }
}

extension JsonFields {
    func ints(_ key: String) throws -> [Int32] {
        try list(key).map { item in
            guard let number = item.asNumber, let id = Int32(number.text) else {
                throw BadVectors(description: "\(at(key)): expected whole numbers")
            }
            return id
        }
    }

    func texts(_ key: String) throws -> [String] {
        try list(key).map { item in
            guard let text = item.asText else {
                throw BadVectors(description: "\(at(key)): expected strings")
            }
            return text
        }
    }
}

/// Fail unless two texts have the same bytes, which `==` does not ask.
func requireSame(_ found: String, _ expected: String) throws {
    if !sameBytes(found, expected) {
        throw BadVectors(
            description: "expected \(expected.debugDescription), found \(found.debugDescription)")
    }
}
