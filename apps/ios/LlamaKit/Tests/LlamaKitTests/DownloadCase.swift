import Foundation
import Testing

@testable import LlamaKit

/// Name under which the tests download.
let downloadName = "model"

/// A bundle on a server, and a folder of models that it comes into.
final class DownloadCase {
    let folder: TestFolder
    let files = testFiles()
    var models: URL { folder.url }
    var target: URL { models.at(downloadName) }
    var part: URL { models.at("\(downloadName).download/model.onnx.part") }
    var artifact: [UInt8] { files[1].content }

    init() throws { folder = try TestFolder() }

    /// A server of the bundle that is honest but for the artifact, which `lie` answers where it is given.
    func server(_ lie: TestServer.Answer? = nil) throws -> TestServer {
        let known = withManifest(files)
        return try TestServer { asked, client in
            let path = String(asked.path.dropFirst("/b/".count))
            if let lie, path == "model.onnx" { return try lie(asked, client) }
            guard let file = known.first(where: { $0.path == path }) else { return try client.answer(404) }
            try client.serve(file.content, asked)
        }
    }

    func fetch(
        _ server: TestServer, http: any Http = UrlHttp(), isStopped: @escaping () -> Bool = { false }
    ) throws -> ModelBundle {
        try Downloader(models: models, http: http).fetch(
            BundleAddress(base: server.base + "/b"), name: downloadName, isStopped: isStopped
        ) { _ in }
    }

    func requireWhole() throws {
        for file in files { #expect(try stored(target.at(file.path)) == file.content, "\(file.path)") }
        #expect(try ModelBundle.open(target).checkHashes { _ in true })
        #expect(Downloader(models: models).unfinished() == [])
    }

    /// Leave the first bytes of the artifact as an earlier run would have.
    func leave(_ count: Int, _ edit: (inout [UInt8]) -> Void = { _ in }) throws {
        try makeFolder(part.deletingLastPathComponent())
        try store(testManifest(files).writeBytes(), at: models.at("\(downloadName).download/\(manifestName)"))
        var kept = Array(artifact.prefix(count))
        edit(&kept)
        try store(kept, at: part)
    }
}
