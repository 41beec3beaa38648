"""onnxruntime alone: several prompts of unequal length at once, padded on the right.

python batch_onnxruntime.py FOLDER < request.json
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder, request = Path(sys.argv[1]), json.load(sys.stdin)
prompts, max_new_tokens = request["input_ids"], request["max_new_tokens"]

session = onnxruntime.InferenceSession(folder / "model.onnx")
outputs = [output.name for output in session.get_outputs()]
cache = {
    tensor.name: np.zeros((len(prompts), tensor.shape[1], 0, tensor.shape[3]), np.float32)
    for tensor in session.get_inputs()
    if tensor.name.startswith("past_key_values.")
}

width = max(len(ids) for ids in prompts)
fed = np.array([ids + [0] * (width - len(ids)) for ids in prompts])
mask = np.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in prompts])
new_ids = []
while len(new_ids) < max_new_tokens:
    found = session.run(outputs, {"input_ids": fed, "attention_mask": mask, **cache})
    result = dict(zip(outputs, found, strict=True))
    cache = {name: result[name.replace("past_key_values", "present")] for name in cache}
    fed = result["logits"][:, -1].argmax(-1)[:, None]
    mask = np.concatenate([mask, np.ones_like(fed)], axis=1)
    new_ids.append(fed[:, 0].tolist())

sys.stdout.write(json.dumps([list(ids) for ids in zip(*new_ids, strict=True)]) + "\n")
