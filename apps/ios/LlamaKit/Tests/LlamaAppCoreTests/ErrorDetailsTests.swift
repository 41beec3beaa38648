import LlamaKit
import Testing

@testable import LlamaAppCore

struct ErrorDetailsTests {
    @Test(
        arguments: [
            ("the thing broke", "The thing broke."),
            ("manifest.json is missing", "manifest.json is missing."),
            ("it was stopped.", "It was stopped."),
            ("über allem", "Über allem."),
            ("", "."),
        ])
    func areASentence(message: String, sentence: String) {
        #expect(BadInput(message, hint: "mend it", kind: .storage).details == sentence)
    }

    @Test(arguments: ErrorKind.allCases)
    func sayWhatToDoWhereTheWordsOfTheKindDoNot(kind: ErrorKind) {
        let isGeneral = [.server, .damaged, .engine].contains(kind)
        let found = EngineError("the thing broke", hint: "Mend it.", kind: kind).details
        #expect(found == (isGeneral ? "The thing broke. Mend it." : "The thing broke."))
        #expect(EngineError("the thing broke", hint: "", kind: kind).details == "The thing broke.")
    }
}
