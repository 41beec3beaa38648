package example;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/** An ONNX artifact in onnxruntime; its KV cache goes in and comes back longer at each step. */
final class Model implements AutoCloseable {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    private final Map<String, OnnxTensor> empty = new HashMap<>();
    private OrtSession.Result last; // owns the cache of all that was fed
    private int seen;

    Model(Path artifact) throws OrtException {
        session = environment.createSession(artifact.toString());
        for (NodeInfo input : session.getInputInfo().values()) {
            if (!input.getName().startsWith("past_key_values.")) continue;
            long[] shape = ((TensorInfo) input.getInfo()).getShape(); // batch, heads, past, head_dim
            shape[0] = 1;
            shape[2] = 0;
            FloatBuffer nothing = FloatBuffer.allocate(0);
            empty.put(input.getName(), OnnxTensor.createTensor(environment, nothing, shape));
        }
    }

    /** Read more tokens, and return the logits that follow the last of them. */
    float[] step(long[] ids) throws OrtException {
        seen += ids.length;
        long[] mask = new long[seen];
        Arrays.fill(mask, 1);
        Map<String, OnnxTensor> inputs = new HashMap<>();
        for (String name : empty.keySet()) inputs.put(name, cache(name));
        try (OnnxTensor fed = row(ids);
                OnnxTensor attended = row(mask)) {
            inputs.put("input_ids", fed);
            inputs.put("attention_mask", attended);
            OrtSession.Result result = session.run(inputs);
            if (last != null) last.close();
            last = result;
        }
        OnnxTensor logits = (OnnxTensor) last.get("logits").orElseThrow();
        FloatBuffer rows = logits.getFloatBuffer();
        int width = (int) logits.getInfo().getShape()[2];
        float[] found = new float[width]; // the last row, also of a bundle with --all-logits
        rows.position(rows.limit() - width).get(found);
        return found;
    }

    private OnnxTensor cache(String name) {
        if (last == null) return empty.get(name);
        return (OnnxTensor) last.get(name.replace("past_key_values", "present")).orElseThrow();
    }

    private OnnxTensor row(long[] values) throws OrtException {
        long[] shape = {1, values.length};
        return OnnxTensor.createTensor(environment, LongBuffer.wrap(values), shape);
    }

    @Override
    public void close() throws OrtException {
        if (last != null) last.close();
        empty.values().forEach(OnnxTensor::close);
        session.close();
    }
}
