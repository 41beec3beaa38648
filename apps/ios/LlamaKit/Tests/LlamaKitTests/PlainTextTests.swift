import Foundation
import Testing

@testable import LlamaKit

/// Read a time such as `2024-07-26T09:05:03`.
func localTime(_ text: String) -> LocalTime {
    let parts = text.split { "-T:".contains($0) }.map { Int($0)! }
    let seconds = parts.count > 5 ? parts[5] : 0
    return LocalTime(
        year: parts[0], month: parts[1], day: parts[2], hour: parts[3], minute: parts[4], second: seconds)
}

@Suite("Times and blanks as Python has them")
struct PlainTextTests {
    @Test func timesAreWrittenAsPythonDoes() throws {
        try Vectors("chat.json", format: 2).each("times") {
            let written = try formatTime($0.text("format"), localTime($0.text("time")))
            try requireSame(written, $0.text("text"))
        }
    }

    @Test(arguments: ["%", "%Z", "%-d", "%d %", "%e", "%c", "%d %q"])
    func aTimeFormatThatPlatformsWriteDifferentlyIsRefused(format: String) {
        #expect(!isTimeFormat(format))
        let message = "the time's format: expected words such as %d and %Y, found \"\(format)\""
        #expect(throws: BadInput(message, hint: "Export the model again, or update the app.")) {
            try formatTime(format, LocalTime(year: 1, month: 1, day: 1))
        }
    }

    @Test func theDayOfTheWeekIsTheCalendars() throws {
        let zone = try #require(TimeZone(identifier: "UTC"))
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = zone
        // Every day of 420 years, the century that is no leap year and the one that is.
        for day in stride(from: -80 * 366, through: 340 * 365, by: 1) {
            let moment = Date(timeIntervalSince1970: Double(day) * 86400 + 3600)
            let time = LocalTime(moment, in: zone)
            let known = (day % 7 + 7 + 3) % 7
            if time.dayOfWeek != known || time.hour != 1 {
                Issue.record("day \(day), \(time), is \(time.dayOfWeek) instead of \(known)")
            }
        }
        #expect(LocalTime(year: 2024, month: 12, day: 31).dayOfYear == 366)
        #expect(LocalTime(year: 2100, month: 3, day: 1).dayOfYear == 60)
    }

    @Test func whatIsStrippedIsWhatPythonStrips() throws {
        let blanks = Set(try Vectors("chat.json", format: 2).ints("blanks").map { UInt32($0) })
        for code in UInt32(0)..<0x110000 {
            guard let scalar = Unicode.Scalar(code) else { continue }
            let text = String(scalar)
            if isBlank(text) != blanks.contains(code) || isBlank(text) != stripped(text).isEmpty {
                Issue.record("U+\(String(code, radix: 16))")
            }
        }
        #expect(stripped(" \n a b\t\u{3000}").utf8.elementsEqual("a b".utf8))
        // The mark belongs to no letter, so a look at whole characters would leave the blank.
        #expect(stripped(" \u{301}a \u{301}\r\n").utf8.elementsEqual("\u{301}a \u{301}".utf8))
        #expect(isBlank(""))
    }
}
