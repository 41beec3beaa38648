import Foundation
import LlamaAppCore
import LlamaKit

/// Sentences of the reports, in the user's language.
extension Words {
    static func running(_ running: RunningReport) -> String {
        if running.isVerifying {
            return String(
                localized:
                    "Verifying: \(running.done, specifier: "%lld") of \(running.total, specifier: "%lld")")
        }
        return String(
            localized: "Measuring: \(running.done, specifier: "%lld") of \(running.total, specifier: "%lld")")
    }

    /// Return what a report says in a line.
    static func verdict(_ result: ReportResult) -> String {
        switch result {
        case .verified(let verdict):
            return verdict.isGreen
                ? String(localized: "✓ This device computes the model right")
                : String(localized: "✗ This device computes the model wrongly")
        case .measured: return String(localized: "How fast it is")
        case .noGolden:
            return String(
                localized:
                    """
                    The bundle of this model holds no answers to compare with. Export it again with \
                    a newer llama-export.
                    """
            )
        case .stopped: return String(localized: "It was stopped.")
        case .failed(let error): return Words.fault(error)
        }
    }

    /// Return the figures of a report; empty: there are none.
    static func detail(_ result: ReportResult) -> String {
        switch result {
        case .verified(let verdict): return distance(verdict)
        case .measured(let found): return speeds(found).joined(separator: "\n")
        case .noGolden, .stopped, .failed: return ""
        }
    }

    private static func distance(_ verdict: GoldenVerdict) -> String {
        let limits = verdict.limits
        var lines = [
            String(
                localized:
                    """
                    Distance from the exporter’s answers: \(decimal(verdict.klMean, 5)) on average \
                    (at most \(decimal(limits.klMean, 5))), \(decimal(verdict.klWorst, 5)) at worst \
                    (at most \(decimal(limits.klWorst, 5))).
                    """
            ),
            String(
                localized:
                    """
                    Other likeliest tokens: \(verdict.swapped, specifier: "%lld"). Answers that are \
                    no probabilities: \(verdict.unsound, specifier: "%lld").
                    """
            ),
        ]
        if let first = verdict.firstBeyond {
            lines.insert(String(localized: "First out of bounds: \(first)."), at: 0)
        }
        return lines.joined(separator: "\n")
    }

    private static func speeds(_ found: BenchResult) -> [String] {
        var lines = [
            String(localized: "Loading: \(decimal(found.loadS, 2)) s"),
            String(
                localized:
                    """
                    First call, \(found.firstCallTokens, specifier: "%lld") tokens: \
                    \(decimal(found.firstCallS, 2)) s
                    """
            ),
        ]
        for each in found.prefill {
            let speed = decimal(each.tokensPerS.median, 1)
            lines.append(
                String(localized: "Reading \(each.tokens, specifier: "%lld") tokens: \(speed) per second"))
        }
        for each in found.decode {
            let speed = each.tokensPerS
            lines.append(
                String(
                    localized:
                        """
                        Writing after \(each.context, specifier: "%lld") tokens: \
                        \(decimal(speed.median, 1)) per second (\(decimal(speed.least, 1)) to \
                        \(decimal(speed.most, 1)))
                        """
                ))
        }
        if let memory = found.residentBytes { lines.append(String(localized: "Memory: \(bytes(memory))")) }
        if let before = found.thermalBefore, let after = found.thermalAfter {
            lines.append(String(localized: "Heat: \(heat(before)) before, \(heat(after)) after"))
        }
        return lines
    }
}
