import LlamaAppCore
import SwiftUI

@main
struct LlamaApp: App {
    @State private var parts = AppParts(
        AppPlaces.onThisDevice, engines: DeviceEngines(), device: ThisDevice(), tokens: Keychain(),
        stored: UserDefaults.standard)

    var body: some Scene {
        WindowGroup {
            RootView()
                .environment(parts)
        }
    }
}

extension AppPlaces {
    /// Application Support for what is the app's own, and Documents for what a user puts there.
    static var onThisDevice: AppPlaces {
        AppPlaces(
            own: URL.applicationSupportDirectory.appendingPathComponent("Llama", isDirectory: true),
            shared: URL.documentsDirectory,
            demo: Bundle.main.url(forResource: "DemoBundle", withExtension: nil))
    }
}
