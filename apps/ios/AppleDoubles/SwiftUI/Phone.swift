// What the app uses on iOS alone, as Apple documents it; see README.md.
// The names are Apple's:
// swift-format-ignore-file
import Foundation

public final class UIPasteboard: @unchecked Sendable {  // holds nothing
    public static let general = UIPasteboard()
    public var string: String? {
        get { nil }
        set {}
    }
}

public enum UIApplication {
    public static let didReceiveMemoryWarningNotification = Notification.Name("memory")
}

public struct NotificationPublisher {}

extension NotificationCenter {
    public func publisher(for name: Notification.Name, object: AnyObject? = nil) -> NotificationPublisher {
        NotificationPublisher()
    }
}

public enum UIKeyboardType: Sendable { case URL, numberPad, decimalPad }

public struct TextInputAutocapitalization: Sendable {
    public static var never: TextInputAutocapitalization { TextInputAutocapitalization() }
}

public enum TitleDisplayMode: Sendable { case automatic, inline, large }

extension View {
    public func onReceive(
        _ publisher: NotificationPublisher, perform action: @escaping (Notification) -> Void
    ) -> some View { self }
    public func keyboardType(_ type: UIKeyboardType) -> some View { self }
    public func textInputAutocapitalization(_ kind: TextInputAutocapitalization?) -> some View { self }
    public func navigationBarTitleDisplayMode(_ mode: TitleDisplayMode) -> some View { self }
}
