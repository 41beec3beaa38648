// What the app uses of Darwin, as its headers declare it; see README.md.
// The names are Apple's:
// swift-format-ignore-file
import Foundation

public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias mach_port_t = UInt32
public typealias mach_msg_type_number_t = UInt32
public typealias task_flavor_t = UInt32
public typealias kern_return_t = Int32

public struct task_vm_info_data_t {
    public var phys_footprint: UInt64 = 0

    public init() {}
}

public var mach_task_self_: mach_port_t { 0 }
public var TASK_VM_INFO: Int32 { 22 }
public var KERN_SUCCESS: kern_return_t { 0 }

public func task_info(
    _ task: mach_port_t, _ flavor: task_flavor_t, _ info: UnsafeMutablePointer<integer_t>?,
    _ count: UnsafeMutablePointer<mach_msg_type_number_t>?
) -> kern_return_t { 0 }

public func sysctlbyname(
    _ name: UnsafePointer<CChar>?, _ old: UnsafeMutableRawPointer?, _ oldSize: UnsafeMutablePointer<Int>?,
    _ new: UnsafeMutableRawPointer?, _ newSize: Int
) -> Int32 { 0 }

extension ProcessInfo {
    public enum ThermalState: Int, Sendable {
        case nominal, fair, serious, critical
    }

    public var thermalState: ThermalState { .nominal }
}
