import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Sends requests by URLSession, a session each: nothing of one is left for another.
public struct SessionTransport: HttpTransport {
    private let silenceSeconds: Int

    /// - Parameter silenceSeconds: time without any byte after which a server counts as gone
    public init(silenceSeconds: Int = 60) {
        self.silenceSeconds = silenceSeconds
    }

    public func send(_ request: HttpRequest, isStopped: () -> Bool) throws -> any HttpAnswer {
        let settings = URLSessionConfiguration.ephemeral
        // The clock that counts is ours: Linux's own sometimes does not go off.
        settings.timeoutIntervalForRequest = 2 * Double(silenceSeconds)
        // A cache would hold whole files in memory, and cookies would tell one host of another.
        settings.urlCache = nil
        settings.httpCookieStorage = nil
        settings.urlCredentialStorage = nil
        settings.requestCachePolicy = .reloadIgnoringLocalCacheData
        var asked = URLRequest(url: request.url)
        for (name, value) in request.headers { asked.setValue(value, forHTTPHeaderField: name) }

        let inbox = Inbox()
        #if canImport(FoundationNetworking)
            // Linux goes on receiving into a task that was suspended, and dies of it.
            let queue = NarrowQueue()
            let session = URLSession(
                configuration: settings, delegate: SessionEvents(inbox), delegateQueue: queue)
            let task = session.dataTask(with: asked)
            inbox.begin(pause: {}, resume: {}, cancel: { task.cancel() })
        #else
            let session = URLSession(
                configuration: settings, delegate: SessionEvents(inbox), delegateQueue: nil)
            let task = session.dataTask(with: asked)
            inbox.begin(pause: { task.suspend() }, resume: { task.resume() }, cancel: { task.cancel() })
        #endif
        let answer = SessionAnswer(inbox: inbox, session: session, silenceSeconds: silenceSeconds)
        task.resume()
        do {
            try answer.waitForHead(isStopped: isStopped)
        } catch {
            answer.close()
            throw error
        }
        return answer
    }
}

/// An answer that a URLSession is giving.
private final class SessionAnswer: HttpAnswer {
    private let inbox: Inbox
    private let session: URLSession
    private let silenceSeconds: Int
    private var heardAt = Date()
    private var head = InboxHead(status: notHttpStatus, headers: [:])

    init(inbox: Inbox, session: URLSession, silenceSeconds: Int) {
        self.inbox = inbox
        self.session = session
        self.silenceSeconds = silenceSeconds
    }

    deinit { close() }

    var status: Int { head.status }

    func header(_ name: String) -> String? { head.headers[name.lowercased()] }

    func waitForHead(isStopped: () -> Bool) throws {
        while true {
            if isStopped() { throw Stopped() }
            if let found = try inbox.head() {
                head = found
                heardAt = Date()
                return
            }
            try requireHeard()
        }
    }

    func read() throws -> Data? {
        guard let piece = try inbox.next() else { return nil }
        if piece.isEmpty { try requireHeard() } else { heardAt = Date() }
        return piece
    }

    /// Give up a server that has been silent for too long.
    private func requireHeard() throws {
        if Date().timeIntervalSince(heardAt) <= Double(silenceSeconds) { return }
        close()
        throw BodyFault("nothing came for \(silenceSeconds) seconds")
    }

    func close() {
        inbox.close()
        session.invalidateAndCancel()
    }
}

/// What URLSession tells about a task, put into its inbox.
private final class SessionEvents: NSObject, URLSessionDataDelegate {
    private let inbox: Inbox

    init(_ inbox: Inbox) { self.inbox = inbox }

    /// No redirect is followed: whoever asked sees it as the answer.
    func urlSession(
        _ session: URLSession, task: URLSessionTask, willPerformHTTPRedirection response: HTTPURLResponse,
        newRequest request: URLRequest, completionHandler: @escaping @Sendable (URLRequest?) -> Void
    ) {
        completionHandler(nil)
    }

    /// A certificate is judged by the system; a server that wants a password gets none.
    func urlSession(
        _ session: URLSession, task: URLSessionTask, didReceive challenge: URLAuthenticationChallenge,
        completionHandler: @escaping @Sendable (URLSession.AuthChallengeDisposition, URLCredential?) -> Void
    ) {
        completionHandler(.performDefaultHandling, nil)
    }

    func urlSession(
        _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
        completionHandler: @escaping @Sendable (URLSession.ResponseDisposition) -> Void
    ) {
        var headers = [String: String]()
        let found = response as? HTTPURLResponse
        for case (let name as String, let value as String) in found?.allHeaderFields ?? [:] {
            headers[name.lowercased()] = value
        }
        inbox.put(InboxHead(status: found?.statusCode ?? notHttpStatus, headers: headers))
        completionHandler(.allow)
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
        inbox.put(data)
        #if canImport(FoundationNetworking)
            inbox.waitForRoom()
        #endif
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?) {
        guard let error else { return inbox.end() }
        if Self.isNoServer(error) { inbox.put(InboxHead(status: notHttpStatus, headers: [:])) }
        inbox.end(fault: error.localizedDescription)
    }

    /// Return whether what answered speaks no HTTP; on Linux it goes by another code.
    private static func isNoServer(_ error: any Error) -> Bool {
        guard let code = (error as? URLError)?.code else { return false }
        return [.badServerResponse, .cannotParseResponse, .unsupportedURL].contains(code)
    }
}

#if canImport(FoundationNetworking)
    /// A queue for URLSession on Linux, which hands over pieces without end and never waits for whoever
    /// takes them: here it waits, and so does the server in the end.
    ///
    /// Unchecked, as its parent is: it has no fields.
    private final class NarrowQueue: OperationQueue, @unchecked Sendable {
        private static let mostOperations = 64
        private static let napMicroseconds: UInt32 = 500

        override init() {
            super.init()
            maxConcurrentOperationCount = 1
        }

        override func addOperation(_ block: @escaping @Sendable () -> Void) {
            while operationCount > Self.mostOperations { usleep(Self.napMicroseconds) }
            super.addOperation(block)
        }
    }
#endif
