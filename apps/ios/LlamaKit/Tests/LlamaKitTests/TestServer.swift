import Foundation

#if canImport(Darwin)
    import Darwin
#else
    import Glibc
#endif

/// What a client asked for.
struct Asked: Sendable {
    let path: String
    let headers: [String: String]

    /// First byte that is wanted; 0: no range was asked for.
    var from: Int {
        guard let range = headers["range"], range.hasPrefix("bytes="), range.hasSuffix("-") else { return 0 }
        return Int(range.dropFirst(6).dropLast()) ?? 0
    }
}

/// A server on loopback that writes whatever bytes a test wants, right or wrong.
///
/// Unchecked, because the lock guards what changes.
final class TestServer: @unchecked Sendable {
    typealias Answer = @Sendable (Asked, Client) throws -> Void

    let base: String
    private let listener: Int32
    private let answer: Answer
    private let lock = NSLock()
    private var requests = [Asked]()

    /// Everything that was asked for, in order.
    var asked: [Asked] { lock.withLock { requests } }

    init(_ answer: @escaping Answer) throws {
        #if canImport(Darwin)
            let kind = SOCK_STREAM
        #else
            let kind = Int32(SOCK_STREAM.rawValue)
        #endif
        listener = socket(AF_INET, kind, 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = listener
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(descriptor, pointer, length) == 0 && listen(descriptor, 64) == 0
                    && getsockname(descriptor, pointer, &length) == 0
            }
        }
        guard isBound else { throw BadVectors(description: "no server can be started") }
        base = "http://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
        self.answer = answer
        Thread.detachNewThread { [weak self] in
            while true {
                let client = accept(descriptor, nil, nil)
                if client < 0 { return }
                guard let server = self else {
                    _ = close(client)
                    return
                }
                Thread.detachNewThread { server.serve(Client(client)) }
            }
        }
    }

    /// Stop listening.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    private func serve(_ client: Client) {
        defer { client.end() }
        guard let request = client.request() else { return }
        lock.withLock { requests.append(request) }
        // A client that went away is what some tests want.
        try? answer(request, client)
    }
}

/// The connection to a client.
final class Client: Sendable {
    struct Gone: Error {}

    private let descriptor: Int32

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        #if canImport(Darwin)
            var on: Int32 = 1
            setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &on, socklen_t(MemoryLayout<Int32>.size))
        #endif
    }

    func end() {
        shutdown(descriptor, Int32(SHUT_WR))
        // Bytes of the client that nobody read would make the end a reset, and it would lose the answer.
        var byte: UInt8 = 0
        while recv(descriptor, &byte, 1, 0) > 0 {}
        close(descriptor)
    }

    func write(_ bytes: [UInt8]) throws {
        #if canImport(Darwin)
            let flags: Int32 = 0
        #else
            let flags = Int32(MSG_NOSIGNAL)
        #endif
        var done = 0
        while done < bytes.count {
            let count = bytes[done...].withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, flags) }
            if count <= 0 { throw Gone() }
            done += count
        }
    }

    /// Write a status line, headers and a body; the length is said unless `headers` says another, and
    /// an empty value leaves a header out.
    func answer(_ status: Int, _ body: [UInt8] = [], _ headers: [String: String] = [:]) throws {
        let all = ["Content-Length": "\(body.count)", "Connection": "close"].merging(headers) { $1 }
        var head = "HTTP/1.1 \(status) -\r\n"
        for (name, value) in all where !value.isEmpty { head += "\(name): \(value)\r\n" }
        try write(Array((head + "\r\n").utf8) + body)
    }

    /// Answer as an honest server does, with the rest of a file where a range is asked for.
    func serve(_ content: [UInt8], _ asked: Asked) throws {
        let from = asked.from
        if from == 0 { return try answer(200, content) }
        if from >= content.count {
            return try answer(416, [], ["Content-Range": "bytes */\(content.count)"])
        }
        let range = "bytes \(from)-\(content.count - 1)/\(content.count)"
        try answer(206, Array(content[from...]), ["Content-Range": range])
    }

    func request() -> Asked? {
        var head = [UInt8]()
        while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            var byte: UInt8 = 0
            if recv(descriptor, &byte, 1, 0) <= 0 { return nil }
            head.append(byte)
        }
        let lines = String(decoding: head, as: UTF8.self).components(separatedBy: "\r\n")
        var headers = [String: String]()
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
            headers[line[..<colon].lowercased()] = value
        }
        let words = lines[0].components(separatedBy: " ")
        return words.count > 1 ? Asked(path: words[1], headers: headers) : nil
    }
}
