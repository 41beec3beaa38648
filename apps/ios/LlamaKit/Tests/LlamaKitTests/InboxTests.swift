import Foundation
import Testing

@testable import LlamaKit

/// What an inbox asked of its task. Unchecked, because the lock guards it.
private final class TaskCalls: @unchecked Sendable {
    private let lock = NSLock()
    private var calls = [String]()

    var all: [String] { lock.withLock { calls } }

    func note(_ call: String) { lock.withLock { calls.append(call) } }
}

@Suite("What a download holds in memory")
struct InboxTests {
    private let calls = TaskCalls()
    private let inbox = Inbox()
    private let piece = Data(count: 1 << 20)

    init() {
        let calls = calls
        inbox.begin(
            pause: { calls.note("pause") }, resume: { calls.note("resume") }, cancel: { calls.note("cancel") }
        )
    }

    @Test func aReaderThatLagsPausesTheTask() throws {
        for _ in 0..<4 { inbox.put(piece) }
        #expect(calls.all == [])
        for _ in 0..<3 { inbox.put(piece) }
        #expect(calls.all == ["pause"])
        for _ in 0..<6 { #expect(try inbox.next() == piece) }
        #expect(calls.all == ["pause"])
        #expect(try inbox.next() == piece)
        #expect(calls.all == ["pause", "resume"])
        #expect(try inbox.next() == Data())
        inbox.end()
        #expect(try inbox.next() == nil)
    }

    @Test func aReaderThatIsFasterThanThePauseDoesNotOvertakeIt() throws {
        let calls = calls
        let begun = DispatchSemaphore(value: 0)
        inbox.begin(
            pause: {
                begun.signal()
                Thread.sleep(forTimeInterval: 0.1)
                calls.note("pause")
            }, resume: { calls.note("resume") }, cancel: {})
        let (inbox, piece) = (inbox, piece)
        Thread.detachNewThread { for _ in 0..<5 { inbox.put(piece) } }
        begun.wait()
        for _ in 0..<5 { #expect(try inbox.next() == piece) }
        #expect(calls.all == ["pause", "resume"])
    }

    @Test func aTaskThatDoesNotPauseIsEndedAndWhatCameIsGiven() throws {
        for _ in 0..<70 { inbox.put(piece) }
        #expect(calls.all == ["pause", "cancel"])
        var count = 0
        do {
            while let piece = try inbox.next() { count += piece.count }
            Issue.record("it ended as if it were whole")
        } catch let fault as BodyFault {
            #expect(fault.description == "it came faster than the storage took it")
        }
        #expect(count <= Inbox.mostBytes + piece.count)
    }

    @Test func anEndIsKeptForTheReader() throws {
        inbox.put(InboxHead(status: 200, headers: [:]))
        inbox.put(InboxHead(status: 500, headers: [:]))
        inbox.put(piece)
        inbox.end(fault: "lost")
        inbox.end()
        #expect(try inbox.head()?.status == 200)
        #expect(try inbox.next() == piece)
        #expect(throws: BodyFault.self) { try inbox.next() }
        #expect(throws: BodyFault.self) {
            let other = Inbox()
            other.end()
            _ = try other.head()
        }
    }

    @Test func aReaderIsWokenByWhatComes() throws {
        let inbox = inbox
        let begun = Date()
        Thread.detachNewThread {
            Thread.sleep(forTimeInterval: 0.05)
            inbox.put(InboxHead(status: 206, headers: [:]))
        }
        while try inbox.head() == nil {}
        #expect(Date().timeIntervalSince(begun) < 5)
        inbox.close()
        #expect(calls.all == ["cancel"])
        #expect(throws: BodyFault.self) { try inbox.next() }
    }

    @Test func aTaskThatWaitsForRoomGoesOnWhenThereIsSomeOrNobodyReads() throws {
        let inbox = inbox
        let piece = piece
        let calls = calls
        Thread.detachNewThread {
            for _ in 0..<6 {
                inbox.put(piece)
                inbox.waitForRoom()
            }
            calls.note("all")
            for _ in 0..<6 { inbox.put(piece) }
            inbox.waitForRoom()
            calls.note("closed")
        }
        Thread.sleep(forTimeInterval: 0.3)
        #expect(!calls.all.contains("all"))
        for _ in 0..<6 { while try inbox.next() == Data() {} }
        while !calls.all.contains("all") { Thread.sleep(forTimeInterval: 0.01) }
        Thread.sleep(forTimeInterval: 0.1)
        #expect(!calls.all.contains("closed"))
        inbox.close()
        while !calls.all.contains("closed") { Thread.sleep(forTimeInterval: 0.01) }
    }

    /// The real client and a reader that sleeps: the server has to wait, what is held stays bounded, and
    /// no byte is out of place.
    @Test func aSlowReaderOfTheRealClient() throws {
        let blocks = 100
        let sent = TaskCalls()
        let server = try TestServer { _, client in
            try client.write(Array("HTTP/1.1 200 -\r\nContent-Length: \(blocks << 20)\r\n\r\n".utf8))
            for block in 0..<blocks {
                try client.write([UInt8](repeating: UInt8(block), count: 1 << 20))
                sent.note("block")
            }
        }
        defer { server.stop() }
        let answer = try UrlHttp().get(server.base, token: nil, from: 0) { false }
        defer { answer.close() }
        Thread.sleep(forTimeInterval: 1)
        // What the sockets and the client hold is not all of it.
        #expect(sent.all.count < 40)
        var count = 0
        while let piece = try answer.read() {
            count += piece.count
            if let last = piece.last { #expect(Int(last) == (count - 1) >> 20) }
        }
        #expect(count == blocks << 20)
    }
}
