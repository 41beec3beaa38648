import Testing

@testable import LlamaKit

@Suite("ExecuTorch's errors")
struct ExecuTorchErrorTests {
    @Test(
        arguments: [
            (
                0x14, "this app has not got an operator of the model (0x14)",
                "export it again with the version"
            ),
            (0x23, "the file is damaged, or of a newer format (0x23)", "update the app"),
            (0x21, "there is not enough memory (0x21)", "a shorter context"),
            (0x22, "a file cannot be read (0x22)", "get the bundle again"),
            (0x77, "the runtime failed (0x77)", "share the log"),
        ])
    func sayWhatToDo(code: Int, meaning: String, hint: String) {
        let error = executorchError("load model.pte", code: code, message: "E")
        #expect(error.message == "ExecuTorch cannot load model.pte: \(meaning). E")
        #expect(error.hint.contains(hint))
    }
}
