package example;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.stream.LongStream;

/** The bundle's tokenizer.json, in Hugging Face's own library. */
final class Vocabulary implements AutoCloseable {
    private static final Map<String, String> AS_IT_IS =
            Map.of("addSpecialTokens", "false", "truncation", "false", "padding", "false");
    private final HuggingFaceTokenizer reader; // of text
    private final HuggingFaceTokenizer writer;

    Vocabulary(Path folder) throws IOException {
        Path path = folder.resolve("tokenizer.json");
        JsonObject file = JsonParser.parseString(Files.readString(path)).getAsJsonObject();
        String settings = Files.readString(folder.resolve("tokenizer_config.json"));
        JsonObject config = JsonParser.parseString(settings).getAsJsonObject();
        boolean isFirst = file.get("pre_tokenizer").toString().contains("\"prepend_scheme\":\"first\"");
        if (isFirst || (config.has("legacy") && !config.get("legacy").getAsBoolean())) {
            // docs/apps.md has the rule; without it a prompt would quietly have other ids.
            String what = ": it puts a blank before the first text alone; this example cannot";
            throw new IOException(path + what);
        }
        writer = HuggingFaceTokenizer.newInstance(path, AS_IT_IS);
        // Without its special tokens it takes none out of what somebody typed.
        var ordinary = new JsonArray();
        for (var token : file.getAsJsonArray("added_tokens")) {
            if (!token.getAsJsonObject().get("special").getAsBoolean()) ordinary.add(token);
        }
        file.add("added_tokens", ordinary);
        byte[] changed = file.toString().getBytes(StandardCharsets.UTF_8);
        reader = HuggingFaceTokenizer.newInstance(new ByteArrayInputStream(changed), AS_IT_IS);
    }

    long[] encode(String text) {
        return reader.encode(text, false, false).getIds();
    }

    /** Begin a text that is told in pieces. */
    Text startText() {
        return new Text();
    }

    /** A text that grows by tokens; a letter may take several of them. */
    final class Text {
        private long[] all = {};
        private String told = "";

        /** Return what a token adds: nothing while a letter is not whole. */
        String add(long id) {
            all = LongStream.concat(LongStream.of(all), LongStream.of(id)).toArray();
            String whole = writer.decode(all, true);
            return whole.endsWith("\uFFFD") ? "" : tell(whole);
        }

        /** Return what is left of it. */
        String end() {
            return tell(writer.decode(all, true));
        }

        private String tell(String whole) {
            String added = whole.substring(told.length());
            told = whole;
            return added;
        }
    }

    @Override
    public void close() {
        reader.close();
        writer.close();
    }
}
