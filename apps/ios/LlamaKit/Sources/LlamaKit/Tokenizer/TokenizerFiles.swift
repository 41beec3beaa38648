import Foundation

/// What a tokenizer's file is; the raw value is for messages.
enum TokenizerFileKind: String, CaseIterable {
    case json = "tokenizer.json"
    case ranks = "base64 rank lines"
    case pieces = "a SentencePiece model"
}

let tokenizerJsonFile = "tokenizer.json"
let tokenizerModelFile = "tokenizer.model"
let getAnotherTokenizer = "Get the whole bundle again, or export the model again."

/// Llama 3's tokenizer.json takes 9 to 17 MB, by how it is written; one of 256,000 tokens 33 MB.
private let mostBytes = 64 * 1024 * 1024
private let headBytes = 256

/// Return whether a file, and no folder, is there.
func isFile(_ file: URL) -> Bool {
    var isFolder: ObjCBool = false
    return FileManager.default.fileExists(atPath: file.path, isDirectory: &isFolder) && !isFolder.boolValue
}

/// Read a tokenizer's file, and no more than any tokenizer has.
///
/// - Throws: ``BundleError`` if it cannot be read
func readTokenizerFile(_ file: URL) throws -> [UInt8] {
    let name = file.lastPathComponent
    do {
        let reader = try FileReader(file)
        guard reader.byteCount <= mostBytes, let content = try reader.readAll(most: mostBytes) else {
            let message = "\(name): \(reader.byteCount) bytes are too many for a tokenizer"
            throw BundleError(message, hint: getAnotherTokenizer)
        }
        return content
    } catch let fault as FileFault {
        throw BundleError("\(name) cannot be read: \(fault)", hint: getAnotherTokenizer)
    }
}

/// Read the JSON object of a file.
///
/// - Throws: ``BundleError`` if it is not UTF-8; ``BadInput`` if it is no JSON object
func jsonOfTokenizer(_ data: [UInt8], where place: String) throws -> JsonObject {
    // The text is let go at once: it is as large as the file, and so is what is parsed of it.
    if String(validating: data, as: UTF8.self) == nil {
        throw BundleError("\(place) is not UTF-8", hint: getAnotherTokenizer)
    }
    return try parseJson(data, where: place).fields(where: place).json
}

/// Return what a file is, by its first bytes and never by its name.
///
/// - Throws: ``BundleError`` if it is no tokenizer
func kindOfTokenizer(_ data: [UInt8], where place: String) throws -> TokenizerFileKind {
    let head = data.prefix(headBytes)
    if head.first(where: { !" \t\r\n".utf8.contains($0) }) == UInt8(ascii: "{") { return .json }
    if isRankLine(head) { return .ranks }
    // A protobuf: field 1 (the pieces), its length, and in it field 1 (the piece's text).
    let isPieces =
        head.count >= 4 && head[0] == 10 && (3..<128).contains(head[1]) && head[2] == 10
        && (1..<128).contains(head[3])
    if isPieces { return .pieces }
    let kinds = TokenizerFileKind.allCases.map(\.rawValue).joined(separator: ", ")
    let message = "\(place): expected a tokenizer (\(kinds)), found \(found(head))"
    throw BundleError(message, hint: getAnotherTokenizer)
}

private func found(_ head: ArraySlice<UInt8>) -> String {
    if head.starts(with: "version https://git-lfs".utf8) { return "a Git LFS pointer instead of the file" }
    let letters = head.map { Unicode.Scalar($0) }
    if letters.allSatisfy(isStripped) { return "an empty file" }
    var text = String.UnicodeScalarView()
    text += letters.prefix(12)
    return "a file that begins with \(shown(String(text)))"
}

private func isRankLine(_ head: ArraySlice<UInt8>) -> Bool {
    let line = head.prefix { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }
    let parts = line.split(separator: UInt8(ascii: " "), maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[1].isEmpty, parts[1].allSatisfy(isDigit) else { return false }
    let padding = parts[0].reversed().prefix { $0 == UInt8(ascii: "=") }.count
    let token = parts[0].dropLast(padding)
    return !token.isEmpty && token.allSatisfy { Base64.value(of: $0) != nil }
}

/// Return whether a byte is one of the digits 0 to 9.
func isDigit(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "0") < 10 }

/// Return a text of somebody else's for a message: in quotes, and not all of a long one.
func shown(_ text: String) -> String {
    var out = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(60) {
        let isPrintable = (0x20...0x7E).contains(scalar.value) || scalar.value > 0xA0
        out.append(isPrintable ? scalar : "?")
    }
    return "\"\(String(out))\""
}
