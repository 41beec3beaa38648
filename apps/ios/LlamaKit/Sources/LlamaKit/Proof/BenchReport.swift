/// Which bundle was measured; nil where it does not say.
public struct BenchBundle: Sendable {
    /// Name of its folder.
    public let folder: String

    /// Name of the model.
    public let model: String

    /// Runtime that it is for.
    public let target: String

    /// How the weights are stored.
    public let recipe: String?

    /// Number of weights that share a scale.
    public let groupSize: Int?

    /// Size of its files.
    public let sizeBytes: Int64?

    /// Name what is known of a bundle.
    public init(
        folder: String, model: String, target: String, recipe: String?, groupSize: Int?, sizeBytes: Int64?
    ) {
        self.folder = folder
        self.model = model
        self.target = target
        self.recipe = recipe
        self.groupSize = groupSize
        self.sizeBytes = sizeBytes
    }
}

/// The phone that was measured; nil: not known.
public struct BenchDevice: Sendable {
    /// Maker and model, and the system's version.
    public let name: String

    /// Number of cores.
    public let cores: Int?

    /// Size of its memory.
    public let memoryBytes: Int64?

    /// Name what is known of a phone.
    public init(name: String, cores: Int?, memoryBytes: Int64?) {
        self.name = name
        self.cores = cores
        self.memoryBytes = memoryBytes
    }
}

/// How many threads the runtime was given.
public struct BenchThreads: Sendable {
    /// Number of threads; nil: the runtime chose, and does not say.
    public let count: Int?

    /// Who chose: the runtime's default, or the app's setting.
    public let chosenBy: String

    /// Name a number of threads, and who chose it.
    public init(count: Int?, chosenBy: String) {
        self.count = count
        self.chosenBy = chosenBy
    }
}

private let reportVersion = 1

extension BenchResult {
    /// Return the report of a measurement, with the keys of `llama-export bench --json`, and `device` and
    /// `thermal`; null is what a phone does not know.
    ///
    /// - Parameters:
    ///   - plan: what was measured
    ///   - bundle: bundle that it was
    ///   - device: phone that it was
    ///   - threads: threads that the runtime was given
    ///   - notes: sentences for a reader
    public func report(
        _ plan: BenchPlan, bundle: BenchBundle, device: BenchDevice, threads: BenchThreads,
        notes: [String] = []
    ) -> JsonObject {
        var report: JsonObject = [
            "format_version": whole(reportVersion),
            "bundle": .object(bundle.json()),
            "machine": .object([
                "cores": whole(device.cores), "physical_cores": .null,
                "memory_bytes": whole(device.memoryBytes),
            ]),
            "settings": .object(plan.json(threads)),
        ]
        for (key, value) in figures().entries { report[key] = value }
        // What other processes do, and how fast the memory is, no app may see.
        for key in [
            "others_before", "others_during", "load_average", "was_busy", "bandwidth", "reads", "fits_caches",
        ] {
            report[key] = .null
        }
        report["notes"] = .array(notes.map { .text($0) })
        report["device"] = .text(device.name)
        report["thermal"] = .object(["before": text(thermalBefore), "after": text(thermalAfter)])
        return report
    }

    private func figures() -> JsonObject {
        [
            "load_s": number(loadS),
            "resident_before_bytes": whole(residentBeforeBytes),
            "resident_bytes": whole(residentBytes),
            "peak_resident_bytes": whole(peakResidentBytes),
            "first_call_tokens": whole(firstCallTokens),
            "first_call_s": number(firstCallS),
            "prefill": .array(
                prefill.map { figures in
                    .object([
                        "tokens": whole(figures.tokens), "first_token_s": figures.firstTokenS.json(),
                        "tokens_per_s": figures.tokensPerS.json(),
                    ])
                }),
            "decode": .array(
                decode.map { figures in
                    .object([
                        "context": whole(figures.context), "tokens_per_s": figures.tokensPerS.json(),
                    ])
                }),
        ]
    }
}

extension BenchBundle {
    fileprivate func json() -> JsonObject {
        [
            "folder": .text(folder), "model": .text(model), "target": .text(target),
            "recipe": text(recipe), "group_size": whole(groupSize), "size_bytes": whole(sizeBytes),
        ]
    }
}

extension BenchPlan {
    fileprivate func json(_ threads: BenchThreads) -> JsonObject {
        [
            "threads": whole(threads.count),
            "threads_chosen_by": .text(threads.chosenBy),
            "prompt_lengths": .array(promptLengths.map { whole($0) }),
            "contexts": .array(contexts.map { whole($0) }),
            "decode_tokens": whole(decodeTokens),
            "repeat": whole(samples),
            "warm_up": whole(1),
        ]
    }
}

extension Spread {
    fileprivate func json() -> Json {
        .object(["median": number(median), "least": number(least), "most": number(most)])
    }
}

private func text(_ value: String?) -> Json { value.map { .text($0) } ?? .null }

private func number(_ value: Double) -> Json { JsonNumber(value).map { .number($0) } ?? .null }

private func whole(_ value: (some FixedWidthInteger)?) -> Json {
    value.map { .number(JsonNumber($0)) } ?? .null
}
