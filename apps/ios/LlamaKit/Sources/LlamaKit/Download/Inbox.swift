import Foundation

/// Status and headers, whose names are in lower case.
struct InboxHead: Sendable {
    let status: Int
    let headers: [String: String]
}

/// Where a task that runs by itself leaves what it receives, and a reader waits for it.
///
/// It holds a bounded number of bytes: beyond some it asks the task to pause, and a task that does
/// not pause is ended.
///
/// Unchecked, because the condition's lock guards every field.
final class Inbox: @unchecked Sendable {
    /// Bytes beyond which the task is asked to pause, and below which it goes on.
    static let pauseBytes = 4 << 20
    static let resumeBytes = 1 << 20

    /// Bytes beyond which the task is ended.
    static let mostBytes = 64 << 20

    /// How long a reader waits before it looks around.
    static let waitSeconds = 0.25

    private let condition = NSCondition()
    private var found: InboxHead?
    private var pieces: [Data] = []
    private var first = 0
    private var heldBytes = 0
    private var isPaused = false
    private var isEnded = false
    private var fault: String?
    private var pause: @Sendable () -> Void = {}
    private var resume: @Sendable () -> Void = {}
    private var cancel: @Sendable () -> Void = {}

    /// Set what pauses the task, lets it go on, and ends it; the first two must not wait for the reader.
    func begin(
        pause: @escaping @Sendable () -> Void,
        resume: @escaping @Sendable () -> Void,
        cancel: @escaping @Sendable () -> Void
    ) {
        locked {
            self.pause = pause
            self.resume = resume
            self.cancel = cancel
        }
    }

    /// Take the head; a second one changes nothing.
    func put(_ head: InboxHead) {
        locked { if found == nil { found = head } }
    }

    /// Take a piece of the body.
    func put(_ piece: Data) {
        let act: (() -> Void)? = locked {
            if isEnded || piece.isEmpty { return nil }
            pieces.append(piece)
            heldBytes += piece.count
            if heldBytes > Self.mostBytes {
                finish(fault: "it came faster than the storage took it")
                return cancel
            }
            if heldBytes > Self.pauseBytes && !isPaused {
                isPaused = true
                // Under the lock, as resuming is: the other way round the task would never go on.
                pause()
            }
            return nil
        }
        act?()
    }

    /// Wait until the reader has taken so much that a task may go on, or let go.
    func waitForRoom() {
        condition.lock()
        while heldBytes > Self.pauseBytes && !isEnded { condition.wait() }
        condition.unlock()
    }

    /// Take note that nothing more comes; of several ends the first counts.
    func end(fault: String? = nil) {
        locked { finish(fault: fault) }
    }

    /// Return the head, or nil where none came for a moment.
    ///
    /// - Throws: ``BodyFault`` if the task ended without one
    func head() throws -> InboxHead? {
        try locked {
            waitUntil { found != nil || isEnded }
            if let found { return found }
            if isEnded { throw BodyFault(fault ?? "it ended without an answer") }
            return nil
        }
    }

    /// Return the next piece: empty where none came for a moment, nil at the end.
    ///
    /// - Throws: ``BodyFault`` if the body broke off
    func next() throws -> Data? {
        try locked {
            waitUntil { first < pieces.count || isEnded }
            if first < pieces.count { return takeFirst() }
            if let fault { throw BodyFault(fault) }
            return isEnded ? nil : Data()
        }
    }

    /// Forget what is held, and end the task.
    func close() {
        let act = locked {
            finish(fault: "it was closed")
            pieces = []
            first = 0
            heldBytes = 0
            return cancel
        }
        act()
    }

    private func takeFirst() -> Data {
        let piece = pieces[first]
        pieces[first] = Data()
        first += 1
        if first == pieces.count {
            pieces.removeAll(keepingCapacity: true)
            first = 0
        }
        heldBytes -= piece.count
        if isPaused && heldBytes < Self.resumeBytes {
            isPaused = false
            resume()
        }
        return piece
    }

    private func finish(fault: String?) {
        if isEnded { return }
        isEnded = true
        self.fault = fault
    }

    private func waitUntil(_ isThere: () -> Bool) {
        let until = Date(timeIntervalSinceNow: Self.waitSeconds)
        while !isThere() && condition.wait(until: until) {}
    }

    private func locked<T>(_ work: () throws -> T) rethrows -> T {
        condition.lock()
        defer {
            condition.broadcast()
            condition.unlock()
        }
        return try work()
    }
}
