#if os(Linux)
    /// What Swift 6.0's library of Observation calls when a lock fails, and no library of Linux exports.
    ///
    /// Without it no program with Observation is linked.
    @_cdecl("_ZN5swift9threading5fatalEPKcz")
    func endOfThreading(_ format: UnsafePointer<CChar>) {
        fatalError(String(cString: format))
    }
#endif
