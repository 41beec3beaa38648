// What the app uses of Accessibility, as the iOS 18 SDK declares it; bodies do nothing. See README.md.
import Foundation

public enum AccessibilityNotification {
    public struct Announcement {
        public init(_ announcement: String) {}
        public func post() {}
    }
}
