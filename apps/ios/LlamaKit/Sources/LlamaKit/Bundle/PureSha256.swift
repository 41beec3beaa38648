/// SHA-256 as FIPS 180-4 has it, for systems without CryptoKit.
struct PureSha256 {
    private static let blockBytes = 64

    private var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a,
        0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    private var held: [UInt8] = []
    private var byteCount: UInt64 = 0

    /// Take the next bytes.
    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        byteCount &+= UInt64(bytes.count)
        var rest = bytes[...]
        if !held.isEmpty {
            let missing = min(Self.blockBytes - held.count, rest.count)
            held.append(contentsOf: rest.prefix(missing))
            rest = rest.dropFirst(missing)
            if held.count < Self.blockBytes { return }
            held.withUnsafeBytes { Self.compress($0, into: &state) }
            held.removeAll(keepingCapacity: true)
        }
        let whole = rest.count - rest.count % Self.blockBytes
        Self.compress(UnsafeRawBufferPointer(rebasing: rest.prefix(whole)), into: &state)
        held.append(contentsOf: rest.dropFirst(whole))
    }

    /// Return the hash `[32]` of all bytes so far.
    func finished() -> [UInt8] {
        var copy = self
        var padding: [UInt8] = [0x80]
        let filled = (held.count + 1 + 8) % Self.blockBytes
        padding += [UInt8](repeating: 0, count: (Self.blockBytes - filled) % Self.blockBytes)
        let bits = byteCount &* 8
        padding += stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: bits >> $0) }
        padding.withUnsafeBytes { copy.update($0) }
        return copy.state.flatMap { word in
            stride(from: 24, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> $0) }
        }
    }

    /// Mix whole blocks into a state `[8]`.
    private static func compress(_ blocks: UnsafeRawBufferPointer, into state: inout [UInt32]) {
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: blockBytes) { schedule in
            constants.withUnsafeBufferPointer { constants in
                state.withUnsafeMutableBufferPointer { state in
                    var at = 0
                    while at < blocks.count {
                        fill(schedule, from: blocks, at: at)
                        mix(schedule, constants, into: state)
                        at += blockBytes
                    }
                }
            }
        }
    }

    @inline(__always)
    private static func fill(
        _ schedule: UnsafeMutableBufferPointer<UInt32>, from blocks: UnsafeRawBufferPointer, at start: Int
    ) {
        var index = 0
        while index < 16 {
            let word = blocks.loadUnaligned(fromByteOffset: start &+ 4 &* index, as: UInt32.self)
            schedule[index] = UInt32(bigEndian: word)
            index &+= 1
        }
        while index < 64 {
            let early = schedule[index &- 15]
            let late = schedule[index &- 2]
            let small0 = turned(early, 7) ^ turned(early, 18) ^ (early &>> 3)
            let small1 = turned(late, 17) ^ turned(late, 19) ^ (late &>> 10)
            schedule[index] = schedule[index &- 16] &+ small0 &+ schedule[index &- 7] &+ small1
            index &+= 1
        }
    }

    @inline(__always)
    private static func mix(
        _ schedule: UnsafeMutableBufferPointer<UInt32>,
        _ constants: UnsafeBufferPointer<UInt32>,
        into state: UnsafeMutableBufferPointer<UInt32>
    ) {
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        var index = 0
        while index < 64 {
            let big1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)
            let choice = (e & f) ^ (~e & g)
            let first = h &+ big1 &+ choice &+ constants[index] &+ schedule[index]
            let big0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)
            let majority = (a & b) ^ (a & c) ^ (b & c)
            (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ big0 &+ majority)
            index &+= 1
        }
        let mixed = (a, b, c, d, e, f, g, h)
        state[0] &+= mixed.0
        state[1] &+= mixed.1
        state[2] &+= mixed.2
        state[3] &+= mixed.3
        state[4] &+= mixed.4
        state[5] &+= mixed.5
        state[6] &+= mixed.6
        state[7] &+= mixed.7
    }

    @inline(__always)
    private static func turned(_ word: UInt32, _ bits: UInt32) -> UInt32 {
        (word &>> bits) | (word &<< (32 &- bits))
    }

    private static let constants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7,
        0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351,
        0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585,
        0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7,
        0xc671_78f2,
    ]
}
