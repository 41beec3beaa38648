// What the app uses of Security, as Apple documents it; see README.md.
// The names are Apple's:
// swift-format-ignore-file
import Foundation

public typealias CFTypeRef = AnyObject
public typealias CFString = NSString
public typealias CFDictionary = NSDictionary
public typealias OSStatus = Int32

private func nothing() -> CFString { NSString() }

public var kSecClass: CFString { nothing() }
public var kSecClassGenericPassword: CFString { nothing() }
public var kSecAttrService: CFString { nothing() }
public var kSecAttrAccount: CFString { nothing() }
public var kSecAttrAccessible: CFString { nothing() }
public var kSecAttrAccessibleWhenUnlockedThisDeviceOnly: CFString { nothing() }
public var kSecReturnData: CFString { nothing() }
public var kSecMatchLimit: CFString { nothing() }
public var kSecMatchLimitOne: CFString { nothing() }
public var kSecValueData: CFString { nothing() }
public var errSecSuccess: OSStatus { 0 }

public func SecItemCopyMatching(
    _ query: CFDictionary, _ result: UnsafeMutablePointer<CFTypeRef?>?
) -> OSStatus { 0 }

@discardableResult
public func SecItemAdd(
    _ attributes: CFDictionary, _ result: UnsafeMutablePointer<CFTypeRef?>?
) -> OSStatus { 0 }

@discardableResult
public func SecItemDelete(_ query: CFDictionary) -> OSStatus { 0 }
