// Styles, each by its short name, as the iOS 18 SDK's SwiftUI declares them. See ../README.md.

@MainActor
@preconcurrency
public protocol PrimitiveButtonStyle {}

@MainActor
@preconcurrency
public protocol LabelStyle {}

@MainActor
@preconcurrency
public protocol FormStyle {}

@MainActor
@preconcurrency
public protocol TextFieldStyle {}

public protocol TextSelectability {
    static var allowsSelection: Bool { get }
}

public struct BorderlessButtonStyle: PrimitiveButtonStyle {}
public struct IconOnlyLabelStyle: LabelStyle {}
public struct GroupedFormStyle: FormStyle {}
public struct RoundedBorderTextFieldStyle: TextFieldStyle {}

public struct EnabledTextSelectability: TextSelectability {
    public static var allowsSelection: Bool { true }
}

extension PrimitiveButtonStyle where Self == BorderlessButtonStyle {
    public static var borderless: BorderlessButtonStyle { BorderlessButtonStyle() }
}

extension LabelStyle where Self == IconOnlyLabelStyle {
    public static var iconOnly: IconOnlyLabelStyle { IconOnlyLabelStyle() }
}

extension FormStyle where Self == GroupedFormStyle {
    public static var grouped: GroupedFormStyle { GroupedFormStyle() }
}

extension TextFieldStyle where Self == RoundedBorderTextFieldStyle {
    public static var roundedBorder: RoundedBorderTextFieldStyle { RoundedBorderTextFieldStyle() }
}

extension TextSelectability where Self == EnabledTextSelectability {
    public static var enabled: EnabledTextSelectability { EnabledTextSelectability() }
}

extension View {
    nonisolated public func buttonStyle<S: PrimitiveButtonStyle>(_ style: S) -> some View { self }
    nonisolated public func labelStyle<S: LabelStyle>(_ style: S) -> some View { self }
    nonisolated public func formStyle<S: FormStyle>(_ style: S) -> some View { self }
    nonisolated public func textFieldStyle<S: TextFieldStyle>(_ style: S) -> some View { self }
    nonisolated public func textSelection<S: TextSelectability>(_ selectability: S) -> some View { self }
}
