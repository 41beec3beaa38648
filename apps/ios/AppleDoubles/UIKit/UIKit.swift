// What the app uses of UIKit, as the iOS 18 SDK declares it; bodies do nothing. See README.md.
@_exported import Foundation

@MainActor
open class UIApplication: NSObject {
    public class nonisolated var didReceiveMemoryWarningNotification: NSNotification.Name {
        NSNotification.Name("")
    }
}

open class UIPasteboard: NSObject, @unchecked Sendable {
    open class var general: UIPasteboard { UIPasteboard() }
    open var string: String?
}

public enum UIKeyboardType: Int, Sendable {
    case `default` = 0
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case URL = 3
    case numberPad = 4
    case decimalPad = 8
}
