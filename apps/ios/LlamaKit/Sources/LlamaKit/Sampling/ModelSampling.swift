/// How a model wants its tokens drawn.
public struct ModelSampling: Sendable, Equatable {
    /// Settings that its bundle asks for; where it says nothing of one, ours.
    public let sampling: Sampling

    /// What it asked for that no sampling can have, a sentence each.
    public let passedOver: [String]

    private static let shownCharacters = 80

    init(sampling: Sampling, passedOver: [String]) {
        self.sampling = sampling
        self.passedOver = passedOver
    }

    /// Read the generation_config.json of a bundle.
    ///
    /// `do_sample: false` takes the likeliest token; a file without that key says nothing of it.
    ///
    /// - Parameter settings: keys of the file
    public init(_ settings: JsonObject) {
        var wishes = Wishes()
        var found = Sampling.defaults
        var passedOver: [String] = []
        for (key, change) in changes {
            guard let value = settings[key], value != .null else { continue }
            var changed = wishes
            if let number = value.asNumber, (try? change(&changed, number)) != nil,
                let changedSampling = try? changed.sampling()
            {
                wishes = changed
                found = changedSampling
            } else {
                let shown = value.write().prefix(Self.shownCharacters)
                passedOver.append("generation_config.json: \(key) cannot be \(shown); it is passed over")
            }
        }
        sampling = settings["do_sample"] == .bool(false) ? found.takingLikeliest() : found
        self.passedOver = passedOver
    }
}

private struct Wishes {
    var temperature = Sampling.defaults.temperature
    var topP = Sampling.defaults.topP
    var topK = Sampling.defaults.topK
    var minP = Sampling.defaults.minP
    var repetitionPenalty = Sampling.defaults.repetitionPenalty

    func sampling() throws -> Sampling {
        try Sampling(
            temperature: temperature, topP: topP, topK: topK, minP: minP, repetitionPenalty: repetitionPenalty
        )
    }
}

private let changes: [(key: String, change: @Sendable (inout Wishes, JsonNumber) throws -> Void)] = [
    ("temperature", { $0.temperature = $1.double() }),
    ("top_p", { $0.topP = $1.double() }),
    ("top_k", { $0.topK = try $1.int() }),
    ("min_p", { $0.minP = $1.double() }),
    ("repetition_penalty", { $0.repetitionPenalty = $1.double() }),
]
