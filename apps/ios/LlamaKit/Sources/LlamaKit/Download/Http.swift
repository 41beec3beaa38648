import Foundation

/// A server that did not give what was asked for; trying again later may help.
public struct NetworkError: AppError, Equatable {
    public let message: String
    public let hint: String
    public let kind: ErrorKind

    public init(_ message: String, hint: String, kind: ErrorKind = .server) {
        self.message = message
        self.hint = hint
        self.kind = kind
    }
}

/// A download or an import that the user ended.
public struct Stopped: AppError, Equatable {
    public let message = "it was stopped"
    public let hint = "Begin again: a download goes on from where it ended."

    public init() {}
}

/// What a server answered, whose body comes in pieces.
public protocol HttpAnswer: AnyObject {
    /// Status, such as 206; ``notHttpStatus`` where what answered is no web server.
    var status: Int { get }

    /// Return the value of a header, whose name is compared without case, or nil.
    func header(_ name: String) -> String?

    /// Return the next piece of the body; empty where none came for a moment, nil at the end.
    ///
    /// - Throws: ``BodyFault`` if the body broke off
    func read() throws -> Data?

    /// Let go of the connection, whether or not the body was read.
    func close()
}

/// What stands for the status where an answer is none of HTTP's.
public let notHttpStatus = -1

/// A body that broke off, in the system's words.
public struct BodyFault: Error, CustomStringConvertible, Sendable {
    public let description: String

    public init(_ description: String) { self.description = description }
}

/// The seam to the network.
public protocol Http: Sendable {
    /// Ask for a file.
    ///
    /// - Parameters:
    ///   - url: address of the file
    ///   - token: secret for the host of `url` alone; nil: none
    ///   - from: first byte that is wanted; 0: the whole file
    ///   - isStopped: asked while nothing comes; true ends it
    /// - Returns: the answer, which the caller closes
    /// - Throws: ``BadInput`` if the token is none; ``NetworkError`` if no server answered, or it led in
    ///   circles or to another protocol; ``Stopped`` if the user asked
    func get(_ url: String, token: String?, from: Int64, isStopped: () -> Bool) throws -> any HttpAnswer
}

/// One request, as it goes to one server.
public struct HttpRequest: Sendable {
    /// Address, of http or https.
    public let url: URL

    /// Headers by name.
    public let headers: [String: String]
}

/// Sends one request and follows no redirect.
public protocol HttpTransport: Sendable {
    /// - Throws: ``BodyFault`` if no answer came; ``Stopped`` if `isStopped` became true meanwhile
    func send(_ request: HttpRequest, isStopped: () -> Bool) throws -> any HttpAnswer
}

/// The platform's own HTTP client.
///
/// It follows redirects itself, because a token must not follow to another host, and an encrypted
/// request must not become a plain one.
public struct UrlHttp: Http {
    private static let mostRedirects = 8
    private static let redirects: Set<Int> = [301, 302, 303, 307, 308]
    private static let offline = "Look whether this device is online, and try again."
    private static let otherPlace = "Look at the address, or get the bundle from elsewhere."

    private let transport: any HttpTransport

    /// Use the platform's client, or another one in its place.
    public init(transport: any HttpTransport = SessionTransport()) {
        self.transport = transport
    }

    public func get(
        _ url: String, token: String?, from: Int64, isStopped: () -> Bool
    ) throws -> any HttpAnswer {
        var place = try Self.parse(url, base: nil, shown: url)
        var secret = token
        if let token, !token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) {
            throw BadInput(
                "the token holds a blank or another character that no token has",
                hint: "Copy it again, whole and alone.", kind: .tokenWanted)
        }
        for _ in 0..<Self.mostRedirects {
            let answer = try send(place, token: secret, from: from, isStopped: isStopped)
            guard Self.redirects.contains(answer.status), let location = answer.header("Location") else {
                return answer
            }
            answer.close()
            let next = try Self.parse(location, base: place, shown: place.absoluteString)
            if Self.scheme(place) == "https" && Self.scheme(next) != "https" {
                throw NetworkError(
                    "\(Self.host(place)) leads to a place that is not encrypted", hint: Self.otherPlace)
            }
            if Self.origin(next) != Self.origin(place) { secret = nil }
            place = next
        }
        throw NetworkError(
            "\(Self.host(place)) leads from one address to the next without end", hint: Self.otherPlace)
    }

    private func send(
        _ place: URL, token: String?, from: Int64, isStopped: () -> Bool
    ) throws -> any HttpAnswer {
        // Else the platform asks for gzip by itself, and lengths and ranges no longer fit.
        var headers = ["Accept-Encoding": "identity"]
        if let token { headers["Authorization"] = "Bearer \(token)" }
        if from > 0 { headers["Range"] = "bytes=\(from)-" }
        do {
            return try transport.send(HttpRequest(url: place, headers: headers), isStopped: isStopped)
        } catch let fault as BodyFault {
            throw NetworkError(
                "\(Self.host(place)) does not answer: \(fault)", hint: Self.offline, kind: .network)
        }
    }

    private static func parse(_ text: String, base: URL?, shown: String) throws -> URL {
        // What a server leads to is not what was typed.
        let kind: ErrorKind = base == nil ? .address : .server
        guard let place = URL(string: text, relativeTo: base)?.absoluteURL else {
            throw NetworkError("\(shown) is no address of a file", hint: otherPlace, kind: kind)
        }
        if !["https", "http"].contains(scheme(place)) {
            throw NetworkError(
                "\(shown): expected http or https, found \(scheme(place))", hint: otherPlace, kind: kind)
        }
        if host(place).isEmpty {
            throw NetworkError("\(shown) names no host", hint: otherPlace, kind: kind)
        }
        return place
    }

    private static func host(_ place: URL) -> String { place.host ?? "" }

    /// Return an address's scheme in lower case, in which it is the same.
    private static func scheme(_ place: URL) -> String { place.scheme?.lowercased() ?? "nothing" }

    private static func origin(_ place: URL) -> [String] {
        let port = place.port ?? (scheme(place) == "https" ? 443 : 80)
        return [scheme(place), host(place).lowercased(), String(port)]
    }
}

extension HttpAnswer {
    /// Read a body of bounded length.
    ///
    /// - Returns: all of it; of a longer one more than `mostBytes` and not the rest
    /// - Throws: ``BodyFault`` if it broke off; ``Stopped`` if the user asked
    func readAtMost(_ mostBytes: Int, isStopped: () -> Bool) throws -> [UInt8] {
        var bytes = [UInt8]()
        while bytes.count <= mostBytes {
            if isStopped() { throw Stopped() }
            guard let piece = try read() else { break }
            bytes.append(contentsOf: piece)
        }
        return bytes
    }
}
