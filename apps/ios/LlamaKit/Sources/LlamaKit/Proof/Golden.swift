import Foundation

/// Name of the file in a bundle that has its golden data.
public let goldenName = "golden.json"

/// The texts that golden calls read: the first one, and one that parts from it after a rewind.
public enum GoldenText: String, CaseIterable, Sendable {
    case prompt
    case rewind
}

// Five digits of each logarithm, and a phone's float32.
private let sumSpread = 1e-3

/// Return whether logarithms of probability `[k]` are those of everything that can come.
func addUp(_ logprobs: [Double], _ restLogprob: Double?) -> Bool {
    let all = restLogprob.map { logprobs + [$0] } ?? logprobs
    // NaN is near nothing.
    let sum = all.reduce(0) { $0 + exp($1 > 1 ? 1 : $1) }
    return abs(sum - 1) <= sumSpread
}

/// One call of an artifact.
public struct GoldenCall: Sendable, Equatable {
    /// Text that is read.
    public let text: GoldenText

    /// Position of the first token that is read; what the cache holds from there on is forgotten.
    public let first: Int

    /// Position of the last token that is read.
    public let at: Int

    /// Words for a message.
    public var named: String {
        let place = first == at ? "position \(at)" : "positions \(first) to \(at)"
        return "\(place) of the \(text.rawValue) text"
    }
}

/// What an artifact answered to a call on the machine that exported it.
public struct GoldenAnswer: Sendable {
    public let call: GoldenCall

    /// Indices `[k]` of the largest logits, the likeliest first.
    public let places: [Int]

    /// Their logarithms of probability `[k]`.
    public let logprobs: [Double]

    /// That of all other places together; nil: there are no others.
    public let restLogprob: Double?
}

/// How far a phone may be from the golden data.
public struct GoldenLimits: Sendable, Equatable {
    /// Mean KL over the calls, in nats.
    public let klMean: Double

    /// KL of one call, in nats.
    public let klWorst: Double

    /// Distance of the two likeliest tokens, in nats, beyond which the first must be the phone's as well.
    public let margin: Double
}

/// A bundle's golden data: what its artifact answers, call by call.
public struct Golden: Sendable {
    /// Name of the target.
    public let target: String

    /// What ran the artifact, with its version.
    public let runtime: String

    /// Tokens of the first text.
    public let promptIds: [Int32]

    /// Number of its tokens with which the second text begins.
    public let rewindTo: Int

    /// Tokens that follow there.
    public let rewindIds: [Int32]

    public let limits: GoldenLimits

    /// Answers in the order of the calls.
    public let answers: [GoldenAnswer]

    /// Return the tokens that a call reads.
    public func ids(of call: GoldenCall) -> [Int32] {
        let ids =
            switch call.text {
            case .prompt: promptIds
            case .rewind: Array(promptIds.prefix(rewindTo)) + rewindIds
            }
        return Array(ids[call.first...call.at])
    }

    /// Largest length of golden data; those of a bundle have some 40 kB.
    static let mostBytes = 2 * 1024 * 1024

    /// Parse a golden.json; ``ModelBundle/readGolden()`` compares its hash first.
    ///
    /// - Parameters:
    ///   - content: UTF-8
    ///   - place: name of the file, for messages
    /// - Throws: ``BundleError`` if it is no JSON, of a newer format, or a field is wrong
    public static func parse(_ content: [UInt8], where place: String = goldenName) throws -> Golden {
        do {
            return try GoldenReader(parseJson(content, where: place).fields(where: place)).read()
        } catch let error as BadInput {
            throw BundleError(error.message, hint: GoldenReader.hint)
        }
    }
}
