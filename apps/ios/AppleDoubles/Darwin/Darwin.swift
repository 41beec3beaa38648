// What the app uses of Darwin, as the iOS 18 SDK declares it; bodies do nothing. See README.md.
// The names are Apple's:
// swift-format-ignore-file
public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias kern_return_t = Int32
public typealias mach_port_t = UInt32
public typealias task_name_t = mach_port_t
public typealias task_flavor_t = natural_t
public typealias task_info_t = UnsafeMutablePointer<integer_t>
public typealias mach_msg_type_number_t = natural_t

public struct task_vm_info {
    public var phys_footprint: UInt64 = 0
    public init() {}
}
public typealias task_vm_info_data_t = task_vm_info

public var KERN_SUCCESS: Int32 { 0 }
public var TASK_VM_INFO: Int32 { 22 }

// C's variable: the compiler's check for data races objects to its use, as it does to Apple's.
public var mach_task_self_: mach_port_t = 0

public func task_info(
    _ target_task: task_name_t, _ flavor: task_flavor_t, _ task_info_out: task_info_t!,
    _ task_info_outCnt: UnsafeMutablePointer<mach_msg_type_number_t>!
) -> kern_return_t { 0 }

@discardableResult
public func sysctlbyname(
    _ name: UnsafePointer<CChar>!, _ oldp: UnsafeMutableRawPointer!,
    _ oldlenp: UnsafeMutablePointer<Int>!, _ newp: UnsafeMutableRawPointer!, _ newlen: Int
) -> Int32 { 0 }
