import Foundation

/// A local time, without its zone.
public struct LocalTime: Sendable, Equatable {
    /// Year of the Gregorian calendar.
    public let year: Int

    /// Month from 1 to 12.
    public let month: Int

    /// Day of the month, from 1 on.
    public let day: Int

    /// Hour from 0 to 23.
    public let hour: Int

    /// Minute from 0 to 59.
    public let minute: Int

    /// Second from 0 to 59.
    public let second: Int

    /// Make a time of its parts, in the Gregorian calendar; months and days count from 1.
    public init(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
        self.year = year
        self.month = month
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
    }

    /// Make the time that clocks of a zone show at a moment, whatever calendar the device is set to.
    public init(_ moment: Date, in zone: TimeZone = .current) {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = zone
        let parts = calendar.dateComponents([.year, .month, .day, .hour, .minute, .second], from: moment)
        self.init(
            year: parts.year ?? 1, month: parts.month ?? 1, day: parts.day ?? 1, hour: parts.hour ?? 0,
            minute: parts.minute ?? 0, second: parts.second ?? 0)
    }

    /// Days since the year's first, from 1 on.
    var dayOfYear: Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        return daysBefore[(month - 1) % 12] + day + (isLeap && month > 2 ? 1 : 0)
    }

    /// The day of the week: 0 is Monday.
    var dayOfWeek: Int {
        // 400 years are whole weeks, and year 1 began on a Monday.
        let past = (year - 1) % 400 + 400
        return (past * 365 + past / 4 - past / 100 + past / 400 + dayOfYear - 1) % 7
    }
}

private let daysBefore = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334]
private let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
private let months = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]
private let shortName = 3

/// Return whether Python's `str.strip` takes a character away.
///
/// Other versions of Unicode have had other blanks.
func isStripped(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F,
        0x3000:
        true
    default: false
    }
}

/// Return a text without the white space at its ends, as Python's `str.strip` and Jinja's `trim` do.
public func stripped(_ text: String) -> String {
    let scalars = text.unicodeScalars
    let rest = scalars.drop(while: isStripped)
    guard let last = rest.lastIndex(where: { !isStripped($0) }) else { return "" }
    return String(rest[...last])
}

/// Return whether a text is blank, as Python sees it.
public func isBlank(_ text: String) -> Bool {
    text.unicodeScalars.allSatisfy(isStripped)
}

/// Return whether every word of a strftime format is one that ``formatTime(_:_:)`` knows.
public func isTimeFormat(_ format: String) -> Bool {
    (try? formatTime(format, LocalTime(year: 1, month: 1, day: 1))) != nil
}

/// Write a local time as Python's `strftime` does, with English names.
///
/// - Throws: ``BadInput`` if the format holds a word that not every platform writes alike
public func formatTime(_ format: String, _ time: LocalTime) throws -> String {
    var written = String.UnicodeScalarView()
    var rest = format.unicodeScalars[...]
    while let scalar = rest.popFirst() {
        if scalar != "%" {
            written.append(scalar)
        } else if let word = rest.popFirst().flatMap({ timeWord($0, time) }) {
            written += word.unicodeScalars
        } else {
            let found = Json.text(format).write().prefix(80)
            throw BadInput(
                "the time's format: expected words such as %d and %Y, found \(found)",
                hint: "Export the model again, or update the app.")
        }
    }
    return String(written)
}

private func timeWord(_ letter: Unicode.Scalar, _ time: LocalTime) -> String? {
    switch letter {
    case "%": "%"
    case "a", "A": dayName(time, isShort: letter == "a")
    case "b", "B": monthName(time, isShort: letter == "b")
    case "d": padded(time.day)
    case "H": padded(time.hour)
    case "I": padded((time.hour + 11) % 12 + 1)
    case "j": padded(time.dayOfYear, digits: 3)
    case "m": padded(time.month)
    case "M": padded(time.minute)
    case "p": time.hour < 12 ? "AM" : "PM"
    case "S": padded(time.second)
    case "y": padded((time.year % 100 + 100) % 100)
    case "Y": String(time.year)
    default: nil
    }
}

private func dayName(_ time: LocalTime, isShort: Bool) -> String {
    let name = days[time.dayOfWeek]
    return isShort ? String(name.prefix(shortName)) : name
}

private func monthName(_ time: LocalTime, isShort: Bool) -> String {
    let name = months[(time.month - 1) % 12]
    return isShort ? String(name.prefix(shortName)) : name
}

private func padded(_ number: Int, digits: Int = 2) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
}
