package example;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.util.HashSet;
import java.util.Set;

/**
 * Answer one question with an ONNX bundle of llama-export, greedily and as the text comes.
 *
 * <pre>mvn -q compile exec:java -Dexec.args="FOLDER 'What is the capital of France?' 200"</pre>
 *
 * A bundle without turns, of a model that is not for chat, goes on with the text instead.
 */
public final class Chat {
    private Chat() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 2) {
            System.err.println("usage: Chat FOLDER TEXT [MAX_TOKENS]");
            System.exit(2);
        }
        Path folder = Path.of(arguments[0]);
        String text = arguments[1];
        int maxTokens = arguments.length > 2 ? Integer.parseInt(arguments[2]) : 200;

        String written = Files.readString(folder.resolve("manifest.json"));
        JsonObject manifest = JsonParser.parseString(written).getAsJsonObject();
        JsonObject tokens = manifest.getAsJsonObject("tokenizer");
        Set<Long> stops = new HashSet<>();
        tokens.getAsJsonArray("stop_token_ids").forEach(id -> stops.add(id.getAsLong()));
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);

        try (var vocabulary = new Vocabulary(folder);
                var model = new Model(folder.resolve(manifest.get("artifact").getAsString()))) {
            long[] fed = Prompt.encode(manifest, text, vocabulary, LocalDateTime.now());
            int room = manifest.getAsJsonObject("graph").get("max_context").getAsInt() - fed.length;
            var answer = vocabulary.startText();
            for (int count = 0; count < Math.min(maxTokens, room); count++) {
                long next = argmax(model.step(fed));
                if (stops.contains(next)) break;
                out.print(answer.add(next));
                fed = new long[] {next};
            }
            out.println(answer.end());
        }
    }

    private static int argmax(float[] logits) {
        int best = 0;
        for (int id = 1; id < logits.length; id++) {
            if (logits[id] > logits[best]) best = id;
        }
        return best;
    }
}
