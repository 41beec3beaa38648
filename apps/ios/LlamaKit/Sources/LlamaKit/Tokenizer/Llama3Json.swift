/// Tells whether a `tokenizer.json` is the one that an export writes beside a `tokenizer.model`.
///
/// Then the small file says all, and the large one need not be parsed. Every byte is compared, so a
/// fine-tune that changed a token in its tokenizer.json is seen.
enum Llama3Json {
    /// Return whether the file is the one that is made of the tokens.
    static func isMade(of tokens: RankTokens, _ data: [UInt8]) -> Bool {
        var rest = data[...]
        // How an export's file begins; every other program writes blanks.
        guard rest.take("{\"version\":\"1.0\",".utf8) else { return false }
        return rest.take(beforeTokens(tokens.count).utf8) && takesTokens(tokens, &rest)
            && rest.take("}}\n".utf8) && rest.isEmpty
    }

    private static func beforeTokens(_ count: Int) -> String {
        let bos = llama3SpecialTokens[0]
        return "\"truncation\":null,\"padding\":null,\"added_tokens\":[" + addedTokens(count)
            + "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\","
            + "\"pretokenizers\":["
            + "{\"type\":\"Split\",\"pattern\":{\"Regex\":\(Json.text(Llama3Splitter.pattern).write())},"
            + "\"behavior\":\"Isolated\",\"invert\":false},\(byteLevel(false, true, false))]},"
            + "\"post_processor\":{\"type\":\"Sequence\",\"processors\":["
            + "\(byteLevel(true, false, true)),"
            + "{\"type\":\"TemplateProcessing\",\"single\":[\(part(bos, "A", 0))],"
            + "\"pair\":[\(part(bos, "A", 0)),\(part(bos, "B", 1))],\"special_tokens\":{"
            + "\"\(bos)\":{\"id\":\"\(bos)\",\"ids\":[\(count)],\"tokens\":[\"\(bos)\"]}}}]},"
            + "\"decoder\":\(byteLevel(true, true, true)),\"model\":{\"type\":\"BPE\","
            + "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
            + "\"end_of_word_suffix\":null,"
            + "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":true,\"vocab\":{"
    }

    private static func addedTokens(_ first: Int) -> String {
        llama3SpecialTokens.enumerated().map { index, name in
            "{\"id\":\(first + index),\"content\":\"\(name)\",\"single_word\":false,\"lstrip\":false,"
                + "\"rstrip\":false,\"normalized\":false,\"special\":true}"
        }.joined(separator: ",")
    }

    private static func byteLevel(_ addPrefixSpace: Bool, _ trimOffsets: Bool, _ useRegex: Bool) -> String {
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":\(addPrefixSpace),"
            + "\"trim_offsets\":\(trimOffsets),\"use_regex\":\(useRegex)}"
    }

    private static func part(_ bos: String, _ text: String, _ type: Int) -> String {
        "{\"SpecialToken\":{\"id\":\"\(bos)\",\"type_id\":\(type)}},"
            + "{\"Sequence\":{\"id\":\"\(text)\",\"type_id\":\(type)}}"
    }

    private static func takesTokens(_ tokens: RankTokens, _ rest: inout ArraySlice<UInt8>) -> Bool {
        // Each with the backslash that JSON wants, but without quotes around it.
        var spelt = ByteStrings(count: tokens.count)
        for rank in 0..<tokens.count {
            spelt.put(escaped(ByteLetters.spell(tokens.table.strings[rank])), at: rank)
        }
        for rank in 0..<tokens.count {
            guard rest.take((rank == 0 ? "\"" : ",\"").utf8), rest.take(spelt[rank]),
                rest.take("\":\(rank)".utf8)
            else { return false }
        }
        guard rest.take("},\"merges\":[".utf8) else { return false }
        var begin = "\""
        for merge in tokens.merges {
            guard rest.take(begin.utf8), rest.take(spelt[Int(merge.left)]), rest.take(" ".utf8),
                rest.take(spelt[Int(merge.right)]), rest.take("\"".utf8)
            else { return false }
            begin = ",\""
        }
        return rest.take("]".utf8)
    }

    private static func escaped(_ letters: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        for letter in letters {
            if letter == UInt8(ascii: "\"") || letter == UInt8(ascii: "\\") { out.append(UInt8(ascii: "\\")) }
            out.append(letter)
        }
        return out
    }
}

extension ArraySlice<UInt8> {
    /// Go on behind some bytes, or say that it goes on otherwise.
    fileprivate mutating func take(_ expected: some Collection<UInt8>) -> Bool {
        guard starts(with: expected) else { return false }
        removeFirst(expected.count)
        return true
    }
}
