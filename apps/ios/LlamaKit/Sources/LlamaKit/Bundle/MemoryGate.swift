import Foundation

#if canImport(os)
    import os
#endif

private let fewestTokens = 512
private let stepTokens: Int64 = 256

/// What can be said of a model before it is loaded; numbers are bytes.
public enum MemoryAnswer: Sendable, Equatable {
    /// It fits with the whole context.
    case fits(needBytes: Int64, availableBytes: Int64)

    /// It fits with a context of `tokens`, and not with the one that was asked for.
    case smaller(tokens: Int, needBytes: Int64, availableBytes: Int64)

    /// It does not fit even with the shortest useful context.
    case tooLarge(needBytes: Int64, availableBytes: Int64)

    /// The bundle does not say what it needs.
    case unknown
}

/// Compares what a model needs with what the system has to give.
///
/// The system kills an app that takes too much, without a word; so it is asked before. It is an
/// estimate: an app offers "try anyway".
public struct MemoryGate: Sendable {
    private let reservedBytes: Int64
    private let availableBytes: @Sendable () -> Int64

    /// - Parameters:
    ///   - reservedBytes: part of the memory that is left to the app itself and its screen
    ///   - availableBytes: reads the memory that an app may still take
    public init(
        reservedBytes: Int64 = 64 << 20,
        availableBytes: @escaping @Sendable () -> Int64 = systemAvailableBytes
    ) {
        self.reservedBytes = reservedBytes
        self.availableBytes = availableBytes
    }

    /// Ask the system now.
    ///
    /// - Parameters:
    ///   - need: the manifest's figures; nil: unknown
    ///   - contextTokens: number of positions that are wanted
    public func ask(_ need: MemoryNeed?, contextTokens: Int) -> MemoryAnswer {
        askMemory(
            need, contextTokens: contextTokens, availableBytes: availableBytes(), reservedBytes: reservedBytes
        )
    }
}

/// Compare what a model needs with a number of bytes that are there; see ``MemoryGate``.
///
/// - Parameters:
///   - need: the manifest's figures; nil: unknown
///   - contextTokens: number of positions that are wanted
///   - availableBytes: memory that the system says an app may still take
///   - reservedBytes: part of it that is left to the app itself and its screen
public func askMemory(
    _ need: MemoryNeed?, contextTokens: Int, availableBytes: Int64, reservedBytes: Int64
) -> MemoryAnswer {
    guard let need else { return .unknown }
    let whole = need.bytes(for: contextTokens)
    let usable = max(0, availableBytes - reservedBytes)
    if whole <= usable { return .fits(needBytes: whole, availableBytes: availableBytes) }
    let left = usable - need.residentBytes
    let tokens = need.kvBytesPerToken == 0 ? 0 : left / need.kvBytesPerToken
    let rounded = Int(min(tokens - tokens % stepTokens, Int64(contextTokens)))
    if left <= 0 || rounded < fewestTokens {
        return .tooLarge(needBytes: whole, availableBytes: availableBytes)
    }
    return .smaller(tokens: rounded, needBytes: need.bytes(for: rounded), availableBytes: availableBytes)
}

extension MemoryNeed {
    /// Return the bytes that a model takes with a context, capped where they cannot be counted.
    public func bytes(for tokens: Int) -> Int64 {
        let (cache, isAbsurd) = kvBytesPerToken.multipliedReportingOverflow(by: Int64(tokens))
        let (all, isTooMany) = residentBytes.addingReportingOverflow(cache)
        return isAbsurd || isTooMany ? Int64.max : all
    }
}

/// Read how many bytes of memory this process may still take, as the system says.
///
/// iOS has a limit for each app. macOS has none, and Linux runs the tests: there it is what the
/// machine has, and what it says is free.
@Sendable
public func systemAvailableBytes() -> Int64 {
    #if canImport(os) && !os(macOS)
        let bytes = os_proc_available_memory()
        // 0: there is no limit, as in a simulator.
        if bytes > 0 { return Int64(clamping: bytes) }
    #endif
    return machineAvailableBytes()
}

private func machineAvailableBytes() -> Int64 {
    #if os(Linux)
        if let text = try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("MemAvailable:") }),
            let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({ Int64($0) })
        {
            return kibibytes * 1024
        }
    #endif
    return Int64(clamping: ProcessInfo.processInfo.physicalMemory)
}
