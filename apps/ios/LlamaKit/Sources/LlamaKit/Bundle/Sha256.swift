#if canImport(CryptoKit)
    import CryptoKit
#endif

/// SHA-256 of bytes that come in pieces: the system's where there is one, else our own.
struct Sha256 {
    #if canImport(CryptoKit)
        private var digest = SHA256()
    #else
        private var digest = PureSha256()
    #endif

    /// Take the next bytes.
    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        #if canImport(CryptoKit)
            digest.update(bufferPointer: bytes)
        #else
            digest.update(bytes)
        #endif
    }

    /// Return the hash of all bytes so far, in lower-case hex.
    func hex() -> String {
        #if canImport(CryptoKit)
            let finished = digest
            return LlamaKit.hex(finished.finalize())
        #else
            return LlamaKit.hex(digest.finished())
        #endif
    }

    /// Return the hash of bytes that are in memory, in lower-case hex.
    static func hex(of bytes: [UInt8]) -> String {
        var digest = Sha256()
        bytes.withUnsafeBytes { digest.update($0) }
        return digest.hex()
    }
}

/// Return bytes as lower-case hex digits.
func hex(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text = [UInt8]()
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}
