import Foundation

/// Work on a model that is about to come, while nobody else does, in this process or another.
///
/// - Parameters:
///   - models: folder that holds the bundles
///   - name: name that the model gets
///   - work: what is done meanwhile
/// - Throws: ``BundleError`` if somebody does, or what `work` writes cannot be written
func whileAlone<T>(_ models: URL, _ name: String, _ work: () throws -> T) throws -> T {
    do {
        try makeFolder(models)
        // Beside the folder that is filled, in which every name may be one of the bundle's files.
        guard let lock = try ModelLock(models.at(name + lockEnding)) else {
            throw BundleError(
                "\(name) is just being fetched or copied", hint: "Wait for it, or stop it first.",
                kind: .other)
        }
        defer { lock.release() }
        return try work()
    } catch let fault as FileFault {
        throw BundleError(
            "\(name) cannot be written: \(fault)",
            hint: "Look whether the storage is full, delete other models or files, and try again.",
            kind: .storage)
    }
}

/// A file that one worker at a time holds locked; it is deleted at the end.
private final class ModelLock {
    private let file: URL
    private let descriptor: Int32

    /// Take the lock, or return nil where another one holds it.
    ///
    /// - Throws: ``FileFault`` if there can be no such file
    init?(_ file: URL) throws {
        self.file = file
        while true {
            let opened = open(file.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            if opened < 0 { throw FileFault.last() }
            if flock(opened, LOCK_EX | LOCK_NB) != 0 {
                close(opened)
                return nil
            }
            if Self.isStill(opened, at: file) {
                descriptor = opened
                return
            }
            // Whoever held it deleted it meanwhile, and the name may be another file's by now.
            close(opened)
        }
    }

    func release() {
        unlink(file.path)
        close(descriptor)
    }

    private static func isStill(_ descriptor: Int32, at file: URL) -> Bool {
        var (opened, named) = (stat(), stat())
        return fstat(descriptor, &opened) == 0 && stat(file.path, &named) == 0
            && opened.st_ino == named.st_ino && opened.st_dev == named.st_dev
    }
}
