import Foundation

private let later = "What is there is kept: try again to go on from where it ended."
private let changed = "The server has other files than its manifest says: get it from elsewhere."
private let noSpace = "Delete other models or files, and try again: it goes on from where it ended."

/// One file of a bundle, fetched so that whatever happens it is either absent or right.
///
/// Bytes go to `NAME.part`; only what continues it exactly is appended, all of it is hashed, also
/// what an earlier run left, and the file gets its name when length and hash are the manifest's.
final class FileDownload {
    private let http: any Http
    private let url: String
    private let token: String?
    private let target: URL
    private let entry: FileEntry
    private let isStopped: () -> Bool
    private let onBytes: (Int64) -> Void
    private var digest = Sha256()

    private var part: URL { URL(fileURLWithPath: target.path + partEnding, isDirectory: false) }
    private var name: String { target.lastPathComponent }

    /// - Parameters:
    ///   - http: way to the network
    ///   - url: address of the file
    ///   - token: secret for that host; nil: none
    ///   - target: where it goes; its folder exists
    ///   - entry: the manifest's fingerprint
    ///   - isStopped: asked with each piece that is read or fetched, from the same thread; true ends the
    ///     download
    ///   - onBytes: told how many bytes of the file are there, or fewer when it begins anew
    init(
        http: any Http, url: String, token: String?, target: URL, entry: FileEntry,
        isStopped: @escaping () -> Bool, onBytes: @escaping (Int64) -> Void
    ) {
        self.http = http
        self.url = url
        self.token = token
        self.target = target
        self.entry = entry
        self.isStopped = isStopped
        self.onBytes = onBytes
    }

    /// Fetch the file, or what is missing of it.
    ///
    /// - Throws: ``NetworkError`` if the server did not answer, or ended early; what came is kept.
    ///   ``BundleError`` if the server sent other bytes than the manifest says, which are deleted, or
    ///   the storage is full. ``Stopped`` if the user asked
    func run() throws {
        do {
            try complete()
        } catch let error as FileFault {
            throw BundleError(
                "\(part.lastPathComponent) cannot be written: \(error)", hint: noSpace, kind: .storage)
        }
    }

    private func complete() throws {
        if try isWhole() { return onBytes(entry.sizeBytes) }
        deleteTree(target)
        let kept = try resumed()
        onBytes(kept)
        if kept < entry.sizeBytes || lengthOfFile(part) == nil { try fetch(kept) }
        try finish()
    }

    private func isWhole() throws -> Bool {
        guard lengthOfFile(target) == entry.sizeBytes else { return false }
        guard let found = try sha256(of: target, onBytes: { _ in !isStopped() }) else { throw Stopped() }
        return found == entry.sha256
    }

    /// Hash what an earlier run left; return how much that is.
    private func resumed() throws -> Int64 {
        digest = Sha256()
        guard let length = lengthOfFile(part), length > 0 else { return 0 }
        if length > entry.sizeBytes {
            deleteTree(part)
            return 0
        }
        var there: Int64 = 0
        let isRead = try FileReader(part).forEachPiece { piece in
            digest.update(piece)
            there += Int64(piece.count)
            return !isStopped()
        }
        if !isRead { throw Stopped() }
        return there
    }

    private func fetch(_ kept: Int64) throws {
        let answer = try http.get(url, token: token, from: kept, isStopped: isStopped)
        defer { answer.close() }
        switch answer.status {
        case 206 where continues(answer, kept): return try receive(answer, from: kept)
        case 200: return try receive(answer, from: 0)
        case 206, 416: break
        default: throw refusal(answer.status)
        }
        answer.close()
        // The server does not go on from there: begin anew, once.
        let anew = try http.get(url, token: token, from: 0, isStopped: isStopped)
        defer { anew.close() }
        if anew.status != 200 { throw refusal(anew.status) }
        try receive(anew, from: 0)
    }

    /// Return whether an answer begins where the part ends, and is of a file of the right length.
    private func continues(_ answer: any HttpAnswer, _ kept: Int64) -> Bool {
        guard let range = answer.header("Content-Range") else { return false }
        return range.hasPrefix("bytes \(kept)-") && range.hasSuffix("/\(entry.sizeBytes)")
    }

    private func receive(_ answer: any HttpAnswer, from: Int64) throws {
        if let encoding = answer.header("Content-Encoding"), encoding != "identity" {
            throw NetworkError(
                "\(name) comes packed as \(encoding), which was not asked for", hint: changed)
        }
        let said = answer.header("Content-Length").flatMap { Int64($0) }
        if let said, said != entry.sizeBytes - from {
            let (all, isAbsurd) = said.addingReportingOverflow(from)
            let length = isAbsurd ? said : all
            throw wrong("has \(length) bytes, and the manifest says \(entry.sizeBytes)")
        }
        if from == 0 { digest = Sha256() }
        let writer = try FileWriter(part, appends: from > 0)
        try copy(answer, writer, from: from)
        try writer.finish()
    }

    private func copy(_ answer: any HttpAnswer, _ writer: FileWriter, from: Int64) throws {
        var there = from
        while try drained({ try take(next(answer, there), writer, &there) }) {}
        if there < entry.sizeBytes {
            throw NetworkError(
                "\(name) ended after \(there) of \(entry.sizeBytes) bytes", hint: later, kind: .network)
        }
    }

    /// Append a piece; return whether there may be more.
    private func take(_ piece: Data?, _ writer: FileWriter, _ there: inout Int64) throws -> Bool {
        guard let piece else { return false }
        if piece.isEmpty { return true }
        there += Int64(piece.count)
        if there > entry.sizeBytes {
            throw wrong("is longer than the manifest's \(entry.sizeBytes) bytes")
        }
        try piece.withUnsafeBytes { bytes in
            try writer.write(bytes)
            digest.update(bytes)
        }
        onBytes(there)
        return true
    }

    private func next(_ answer: any HttpAnswer, _ there: Int64) throws -> Data? {
        if isStopped() { throw Stopped() }
        do {
            return try answer.read()
        } catch let fault as BodyFault {
            throw NetworkError(
                "\(name) broke off after \(there) bytes: \(fault)", hint: later, kind: .network)
        }
    }

    private func finish() throws {
        if digest.hex() != entry.sha256 { throw wrong("has other bytes than the manifest says") }
        do {
            try renamePlace(part, to: target)
        } catch is FileFault {
            throw BundleError(
                "\(part.lastPathComponent) cannot be renamed", hint: "Look whether the storage is full.",
                kind: .storage)
        }
    }

    private func wrong(_ fault: String) -> BundleError {
        deleteTree(part)
        return BundleError("\(name) \(fault); it was deleted", hint: changed, kind: .wrongBytes)
    }

    private func refusal(_ status: Int) -> any AppError {
        switch status {
        case 401, 403:
            NetworkError(
                "\(name): the server wants to know who asks (\(status))",
                hint: "Give a token that may read this model, and accept its licence on its page.",
                kind: .tokenWanted)
        case notHttpStatus: NetworkError("\(name): what answers is no web server", hint: later)
        case 404: BundleError("\(name) is not on the server", hint: changed, kind: .server)
        default: NetworkError("\(name): the server answered \(status)", hint: later)
        }
    }
}
