package example;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.LongStream;

/** A user's message as the bundle's model wants it, by the key `chat` of the manifest. */
final class Prompt {
    // strftime's words, of those that manifests may have, in Java's.
    private static final Map<Character, String> TIMES = Map.ofEntries(
            Map.entry('a', "EEE"), Map.entry('A', "EEEE"), Map.entry('b', "MMM"),
            Map.entry('B', "MMMM"), Map.entry('d', "dd"), Map.entry('H', "HH"),
            Map.entry('I', "hh"), Map.entry('j', "DDD"), Map.entry('m', "MM"),
            Map.entry('M', "mm"), Map.entry('p', "a"), Map.entry('S', "ss"),
            Map.entry('y', "yy"), Map.entry('Y', "yyyy"));

    // The white space that Python's str.strip takes away, which is not quite what Java's takes.
    private static final String BLANKS =
            "[\\x09-\\x0D\\x1C-\\x20\\x85\\xA0\\u1680\\u2000-\\u200A"
                    + "\\u2028\\u2029\\u202F\\u205F\\u3000]+";
    private static final Pattern AROUND = Pattern.compile("\\A" + BLANKS + "|" + BLANKS + "\\z");

    private final Vocabulary vocabulary;
    private final LocalDateTime now;
    private final StringBuilder text = new StringBuilder();
    private final LongStream.Builder ids = LongStream.builder();

    private Prompt(Vocabulary vocabulary, LocalDateTime now) {
        this.vocabulary = vocabulary;
        this.now = now;
    }

    /** Return the ids of a dialog with one message, or of a text to go on with. */
    static long[] encode(
            JsonObject manifest, String message, Vocabulary vocabulary, LocalDateTime now) {
        var prompt = new Prompt(vocabulary, now);
        JsonElement told = manifest.getAsJsonObject("chat").get("turns");
        if (told.isJsonNull()) {
            JsonObject tokens = manifest.getAsJsonObject("tokenizer");
            if (tokens.has("prefix_token_ids")) {
                prompt.add(tokens.getAsJsonArray("prefix_token_ids"));
            } else {
                prompt.ids.add(tokens.get("bos_token_id").getAsLong());
            }
            prompt.text.append(message);
        } else {
            JsonObject turns = told.getAsJsonObject();
            JsonObject user = turns.getAsJsonObject("user");
            boolean isTrimmed = turns.getAsJsonArray("trim").contains(new JsonPrimitive("user"));
            prompt.add(turns.getAsJsonArray("begin"));
            prompt.add(turns.getAsJsonArray("no_system"));
            prompt.add(user.getAsJsonArray("prefix"));
            prompt.text.append(isTrimmed ? AROUND.matcher(message).replaceAll("") : message);
            prompt.add(user.getAsJsonArray("suffix"));
            prompt.add(turns.getAsJsonArray("answer"));
        }
        prompt.endText();
        return prompt.ids.build().toArray();
    }

    /** Add pieces: a number is a token, a string a text, an object the time. */
    private void add(JsonArray pieces) {
        for (JsonElement piece : pieces) {
            if (piece.isJsonObject()) {
                text.append(time(piece.getAsJsonObject().get("strftime").getAsString()));
            } else if (piece.getAsJsonPrimitive().isString()) {
                text.append(piece.getAsString());
            } else {
                endText();
                ids.add(piece.getAsLong());
            }
        }
    }

    /** Neighbouring texts are one text, and are encoded together. */
    private void endText() {
        if (text.length() > 0) {
            for (long id : vocabulary.encode(text.toString())) ids.add(id);
        }
        text.setLength(0);
    }

    private String time(String format) {
        var written = new StringBuilder();
        for (int at = 0; at < format.length(); at++) {
            if (format.charAt(at) != '%') {
                written.append(format.charAt(at));
                continue;
            }
            char word = format.charAt(++at);
            if (word == '%') {
                written.append('%');
            } else {
                written.append(DateTimeFormatter.ofPattern(TIMES.get(word), Locale.US).format(now));
            }
        }
        return written.toString();
    }
}
