@preconcurrency import Darwin
import Foundation
import LlamaAppCore
import LlamaKit

/// What the system says of this device.
struct ThisDevice: Device {
    var name: String { "\(model), \(system)" }

    var facts: KeyValuePairs<String, String> {
        ["model": model, "system": system, "abi": "arm64"]
    }

    var totalBytes: Int64 { Int64(clamping: ProcessInfo.processInfo.physicalMemory) }

    func availableBytes() -> Int64 { systemAvailableBytes() }

    /// The footprint is what the system compares with an app's limit; mapped files are not in it.
    func appMemoryBytes() -> Int64? {
        var info = task_vm_info_data_t()
        let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
        var count = mach_msg_type_number_t(words)
        let status = withUnsafeMutablePointer(to: &info) { place in
            place.withMemoryRebound(to: integer_t.self, capacity: words) { words in
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), words, &count)
            }
        }
        return status == KERN_SUCCESS ? Int64(clamping: info.phys_footprint) : nil
    }

    func thermal() -> String? {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return nil
        }
    }

    private var model: String {
        #if os(macOS)
            return named("hw.model")
        #else
            return named("hw.machine")
        #endif
    }

    private var system: String {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        let number = "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
        #if os(macOS)
            return "macOS \(number)"
        #else
            return "iOS \(number)"
        #endif
    }

    private func named(_ key: String) -> String {
        var size = 0
        guard sysctlbyname(key, nil, &size, nil, 0) == 0, size > 0 else { return "unknown" }
        var bytes = [UInt8](repeating: 0, count: size)
        guard sysctlbyname(key, &bytes, &size, nil, 0) == 0 else { return "unknown" }
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
