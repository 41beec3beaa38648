import Foundation

private let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
private let months = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]
private let daysBefore = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334]
private let secondsOfDay = 86_400
// From 0000-03-01, with which a leap day ends a year, to 1970-01-01.
private let daysUntil1970 = 719_468
private let daysOf400Years = 146_097

/// The time that a clock on the wall shows, in the Gregorian calendar, whatever the phone's own is.
public struct LocalDateTime: Sendable, Equatable {
    public let year: Int

    /// Month from 1.
    public let month: Int

    /// Day of the month from 1.
    public let day: Int

    /// Hour from 0 to 23.
    public let hour: Int
    public let minute: Int
    public let second: Int

    /// Name a time by its parts.
    public init(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
        self.year = year
        self.month = month
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
    }

    /// Read a clock.
    ///
    /// - Parameters:
    ///   - date: moment
    ///   - zone: where the clock hangs
    public init(_ date: Date, in zone: TimeZone) {
        let seconds = Int(date.timeIntervalSince1970.rounded(.down)) + zone.secondsFromGMT(for: date)
        let ofDay = positive(seconds, secondsOfDay)
        let days = (seconds - ofDay) / secondsOfDay + daysUntil1970
        let dayOfEra = positive(days, daysOf400Years)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        // Months are counted from March.
        let months = (5 * dayOfYear + 2) / 153
        let month = months < 10 ? months + 3 : months - 9
        let year = (days - dayOfEra) / daysOf400Years * 400 + yearOfEra + (month <= 2 ? 1 : 0)
        self.init(
            year: year, month: month, day: dayOfYear - (153 * months + 2) / 5 + 1, hour: ofDay / 3600,
            minute: ofDay / 60 % 60, second: ofDay % 60)
    }

    /// Return the time that it is now.
    public static func now(in zone: TimeZone = .current) -> LocalDateTime {
        LocalDateTime(Date(), in: zone)
    }

    /// Day of the year from 1.
    var dayOfYear: Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        return daysBefore[month - 1] + day + (isLeap && month > 2 ? 1 : 0)
    }

    /// Day of the week, from 0 on Monday.
    var dayOfWeek: Int {
        let before = positive(year - 1, 400)
        return (365 * before + before / 4 - before / 100 + dayOfYear - 1) % 7
    }
}

/// Return whether every word of a strftime format is one that ``formatTime(_:_:)`` knows.
func isTimeFormat(_ format: String) -> Bool {
    (try? formatTime(format, LocalDateTime(year: 1, month: 1, day: 1))) != nil
}

/// Write a local time as Python's `strftime` does, with English names everywhere.
///
/// - Throws: ``BadInput`` if the format holds a word that not every platform writes alike
func formatTime(_ format: String, _ time: LocalDateTime) throws -> String {
    var written = ""
    var rest = format.unicodeScalars[...]
    while let scalar = rest.popFirst() {
        if scalar != "%" {
            written.unicodeScalars.append(scalar)
        } else if let word = rest.popFirst().flatMap({ timeWord($0, time) }) {
            written += word
        } else {
            let shown = Json.text(format).write().prefix(80)
            throw BadInput(
                "the time's format: expected words such as %d and %Y, found \(shown)",
                hint: "Export the model again, or update the app.")
        }
    }
    return written
}

private func timeWord(_ letter: Unicode.Scalar, _ time: LocalDateTime) -> String? {
    dateWord(letter, time) ?? clockWord(letter, time)
}

private func dateWord(_ letter: Unicode.Scalar, _ time: LocalDateTime) -> String? {
    switch letter {
    case "a": String(days[time.dayOfWeek].prefix(3))
    case "A": days[time.dayOfWeek]
    case "b": String(months[time.month - 1].prefix(3))
    case "B": months[time.month - 1]
    case "d": padded(time.day)
    case "j": padded(time.dayOfYear, 3)
    case "m": padded(time.month)
    case "y": padded(positive(time.year, 100))
    case "Y": String(time.year)
    default: nil
    }
}

private func clockWord(_ letter: Unicode.Scalar, _ time: LocalDateTime) -> String? {
    switch letter {
    case "%": "%"
    case "H": padded(time.hour)
    case "I": padded((time.hour + 11) % 12 + 1)
    case "M": padded(time.minute)
    case "p": time.hour < 12 ? "AM" : "PM"
    case "S": padded(time.second)
    default: nil
    }
}

private func padded(_ number: Int, _ digits: Int = 2) -> String {
    let written = String(number)
    return String(repeating: "0", count: max(0, digits - written.utf8.count)) + written
}

/// Return what a division leaves, from 0 on, of negative numbers too.
private func positive(_ number: Int, _ divisor: Int) -> Int {
    let rest = number % divisor
    return rest < 0 ? rest + divisor : rest
}
