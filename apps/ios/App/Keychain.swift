import Foundation
import LlamaAppCore
import Security

/// Keeps access tokens in the keychain of this device, one for each host.
struct Keychain: TokenStore {
    private let service = "org.llamaexport.app.token"

    func token(for host: String) -> String? {
        var query = item(host)
        query[kSecReturnData as String] = true
        query[kSecMatchLimit as String] = kSecMatchLimitOne
        var found: CFTypeRef?
        guard SecItemCopyMatching(query as CFDictionary, &found) == errSecSuccess, let data = found as? Data
        else { return nil }
        return String(decoding: data, as: UTF8.self)
    }

    func keep(_ token: String?, for host: String) {
        SecItemDelete(item(host) as CFDictionary)
        guard let token else { return }
        var added = item(host)
        added[kSecValueData as String] = Data(token.utf8)
        // It leaves the device in no backup.
        added[kSecAttrAccessible as String] = kSecAttrAccessibleWhenUnlockedThisDeviceOnly
        SecItemAdd(added as CFDictionary, nil)
    }

    private func item(_ host: String) -> [String: Any] {
        [
            kSecClass as String: kSecClassGenericPassword,
            kSecAttrService as String: service,
            kSecAttrAccount as String: host,
        ]
    }
}
