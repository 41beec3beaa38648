import Foundation
import LlamaKit
import Observation

/// Whether the app is before the user, as the system says.
public enum AppPhase: Sendable {
    case active
    case inactive
    case background
}

/// What the app may do: it computes only while it is active.
@MainActor
@Observable
public final class Foreground {
    /// Whether work that the background interrupted waits for the user's word.
    public private(set) var isPaused = false

    @ObservationIgnored public let gate = PauseGate()
    @ObservationIgnored private var phase = AppPhase.active
    @ObservationIgnored private var wasInBackground = false
    @ObservationIgnored private var waiting: [CheckedContinuation<Void, Never>] = []
    @ObservationIgnored private var isReleased = false

    public init() {}

    /// Hear of a change.
    ///
    /// - Parameter isComputing: whether the model is at work
    public func change(to next: AppPhase, isComputing: Bool) {
        phase = next
        switch next {
        case .active:
            if isComputing && wasInBackground { isPaused = true } else { gate.resume() }
            wasInBackground = false
            release()
        case .inactive:
            gate.pause()
        case .background:
            gate.pause()
            wasInBackground = true
        }
    }

    /// Whether the app may load and compute.
    var isActive: Bool { phase == .active }

    /// Go on with what was paused.
    public func goOn() {
        isPaused = false
        if phase == .active { gate.resume() }
    }

    /// Hear that the model rests.
    func workEnded() {
        goOn()
    }

    /// Wait until the app is active, so that nothing is loaded in the background.
    func wait() async {
        while phase != .active && !isReleased {
            await withCheckedContinuation { waiting.append($0) }
        }
        isReleased = false
    }

    /// End ``wait()`` of what is given up.
    func giveUp() {
        if waiting.isEmpty { return }
        isReleased = true
        release()
    }

    private func release() {
        let ended = waiting
        waiting = []
        for each in ended { each.resume() }
    }
}
