// What the app uses of CoreTransferable, as the iOS 18 SDK declares it; Transferable's requirement is
// left out, because no type of the app conforms to it. See README.md.
@_exported import AppleFoundation
@_exported import Foundation

public protocol Transferable {}
extension String: Transferable {}
extension URL: Transferable {}
extension Never: Transferable {}
