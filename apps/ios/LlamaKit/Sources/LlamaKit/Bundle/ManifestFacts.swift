import Foundation

extension ModelBundle {
    /// Return the SHA-256 of a bundle's manifest.json in hex, which stands for all files of the bundle.
    ///
    /// - Throws: ``BundleError`` if it cannot be read
    public static func manifestSha256(_ folder: URL) throws -> String {
        Sha256.hex(of: try manifestBytes(folder))
    }

    /// Return the facts of a Core ML package that its manifest has.
    ///
    /// - Throws: ``BundleError`` if the manifest has not the signature of a Core ML package
    public func coreMLLayout() throws -> CoreMLLayout {
        do {
            let manifest = try parseJson(Self.manifestBytes(folder), where: manifestName)
            return try CoreMLLayout(graph: manifest.fields(where: manifestName).fields("graph"))
        } catch let error as BadInput {
            throw BundleError(error.message, hint: error.hint)
        }
    }

    private static func manifestBytes(_ folder: URL) throws -> [UInt8] {
        do {
            return try readManifest(FileReader(folder.at(manifestName)), where: manifestName)
        } catch let fault as FileFault {
            throw BundleError("\(manifestName) cannot be read: \(fault)", hint: "Copy the bundle again.")
        }
    }
}
