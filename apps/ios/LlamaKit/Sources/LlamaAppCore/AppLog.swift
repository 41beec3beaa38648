import Foundation
import Synchronization

/// What went wrong, for the user to share; it holds no word of a conversation.
public final class AppLog: Sendable {
    private static let mostBytes = 128 * 1024

    private let file: URL
    private let older: URL
    private let lock = Mutex(())

    /// - Parameter file: where it is kept, with its older half in `NAME.1`
    public init(file: URL) {
        self.file = file
        older = file.appendingPathExtension("1")
    }

    /// Append a line, and an error.
    public func write(_ line: String, _ error: (any Error)? = nil) {
        let fault = error.map { ": \($0)" } ?? ""
        let text = "\(Date().formatted(.iso8601)) \(line)\(fault)\n"
        lock.withLock { _ in append(Data(text.utf8)) }
    }

    /// Return all of it, oldest first.
    public func read() -> String {
        lock.withLock { _ in
            [older, file].compactMap { try? Data(contentsOf: $0) }
                .map { String(decoding: $0, as: UTF8.self) }.joined()
        }
    }

    // A full storage must not end an answer too, so what fails here is passed over.
    private func append(_ line: Data) {
        let files = FileManager.default
        if let size = try? files.attributesOfItem(atPath: file.path)[.size] as? Int, size > Self.mostBytes {
            try? files.removeItem(at: older)
            try? files.moveItem(at: file, to: older)
        }
        if !files.fileExists(atPath: file.path) {
            try? files.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            _ = files.createFile(atPath: file.path, contents: nil)
        }
        guard let handle = try? FileHandle(forWritingTo: file) else { return }
        defer { try? handle.close() }
        _ = try? handle.seekToEnd()
        try? handle.write(contentsOf: line)
    }
}
