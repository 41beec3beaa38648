/// What the patterns of tokenizers take each character for.
///
/// It is made of a table that was made by asking the tokenizers' own engine, because the tables of
/// a phone are older or newer, and every version of iOS has others.
struct CharacterClasses: Sendable {
    /// What a character is.
    struct Kind: Equatable {
        fileprivate let bits: UInt8

        static var other: Kind { Kind(bits: 0) }
        static var letter: Kind { Kind(bits: 1) }
        static var number: Kind { Kind(bits: 2) }
        static var blank: Kind { Kind(bits: 3) }
    }

    /// The classes of all characters, made at the first use.
    static let shared = CharacterClasses()

    private static let kindMask: UInt8 = 3
    private static let digitFlag: UInt8 = 4
    private static let codePoints = 0x110000

    private let classes: Frozen<UInt8>
    private let endingLetters: [UInt32: UInt8]

    private init() {
        var letters: [UInt32: UInt8] = [:]
        for (letter, codePoints) in UnicodeTable.endings {
            for code in codePoints { letters[code] = letter }
        }
        endingLetters = letters
        var classes: [UInt8] = Array(repeating: 0, count: Self.codePoints)
        Self.mark(UnicodeTable.letters, Kind.letter.bits, in: &classes)
        Self.mark(UnicodeTable.numbers, Kind.number.bits, in: &classes)
        Self.mark(UnicodeTable.blanks, Kind.blank.bits, in: &classes)
        Self.mark(UnicodeTable.digits, Self.digitFlag, in: &classes)
        self.classes = Frozen(classes)
    }

    private static func mark(_ runs: [UInt32], _ bits: UInt8, in classes: inout [UInt8]) {
        var at = 0
        for run in stride(from: 0, to: runs.count, by: 2) {
            at += Int(runs[run])
            let end = at + Int(runs[run + 1])
            while at < end {
                classes[at] |= bits
                at += 1
            }
        }
    }

    /// Return what a character is.
    @inline(__always)
    func kind(of code: UInt32) -> Kind {
        Kind(bits: classes[Int(code)] & Self.kindMask)
    }

    /// Return whether the step `Digits` splits a character off; it knows more than `number`.
    @inline(__always)
    func splitsOff(_ code: UInt32) -> Bool {
        classes[Int(code)] & Self.digitFlag != 0
    }

    /// Return which letter of an ending such as `'s` a character is in any case, or nil.
    func endingLetter(_ code: UInt32) -> UInt8? { endingLetters[code] }
}
