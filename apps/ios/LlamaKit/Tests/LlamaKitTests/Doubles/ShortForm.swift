@testable import LlamaKit

let beginToken: Int32 = 256
let endToken: Int32 = 257

/// Turns of two special tokens, as short as can be.
let shortForm = ChatFormat(
    turns: Turns(
        begin: [], noSystem: [.text("-")], system: .turn(shortTurn("s")), user: shortTurn("u"),
        assistant: shortTurn("a"), answer: [.token(beginToken), .text("a")], trim: [], thoughtsEnd: nil),
    reason: nil)

/// The same without a place for a system message.
let formWithoutSystem = ChatFormat(
    turns: Turns(
        begin: [], noSystem: [], system: nil, user: shortTurn("u"), assistant: shortTurn("a"),
        answer: [.token(beginToken), .text("a")], trim: [], thoughtsEnd: nil),
    reason: nil)

private func shortTurn(_ letter: String) -> Turn {
    Turn(prefix: [.token(beginToken), .text(letter)], suffix: [.token(endToken)])
}

/// A model that fails after a number of calls, and may have written some rows by then.
class Failing: RowModel {
    var callsLeft = Int.max

    init(_ maxContext: Int = 512, steps: Float = 256) {
        super.init(vocabSize: 258, maxContext: maxContext, steps: steps)
    }

    override func step(_ ids: [Int32], at position: Int) throws -> UnsafeBufferPointer<Float> {
        callsLeft -= 1
        if callsLeft >= 0 { return try super.step(ids, at: position) }
        if ids.count > 1 { _ = try super.step(Array(ids[..<(ids.count / 2)]), at: position) }
        throw EngineError("the runtime failed", hint: "")
    }
}

extension Generator {
    /// Write with a model of letters and two special tokens.
    convenience init(_ model: any StepModel) throws {
        self.init(try KeptCache(model), tokenizer: LetterTokenizer(["begin", "end"]), stopIds: [endToken])
    }
}
