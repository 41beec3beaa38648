"""onnxruntime alone: a greedy loop over numpy arrays, without a line of llama-export.

python plain_onnxruntime.py FOLDER < request.json
"""

import json
import sys
from pathlib import Path

import jinja2
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, request = Path(sys.argv[1]), json.load(sys.stdin)

config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
session = onnxruntime.InferenceSession(folder / "model.onnx")
outputs = [output.name for output in session.get_outputs()]


def generate(input_ids, max_new_tokens):
    """Return the likeliest tokens, one after the other."""
    cache = {
        tensor.name: np.zeros((1, tensor.shape[1], 0, tensor.shape[3]), np.float32)
        for tensor in session.get_inputs()
        if tensor.name.startswith("past_key_values.")
    }
    new_ids, fed, seen = [], input_ids, 0
    while len(new_ids) < max_new_tokens:
        seen += len(fed)
        ids, mask = np.array([fed]), np.ones((1, seen), np.int64)
        found = session.run(outputs, {"input_ids": ids, "attention_mask": mask, **cache})
        result = dict(zip(outputs, found, strict=True))
        cache = {name: result[name.replace("past_key_values", "present")] for name in cache}
        fed = [int(result["logits"][0, -1].argmax())]
        if fed[0] in config["eos_token_id"]:
            break
        new_ids += fed
    return new_ids


def encode(prompt):
    """Return the ids of a text, or of a chat as the chat template writes it."""
    if "text" in prompt:
        return tokenizer.encode(prompt["text"]).ids
    known = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(known["chat_template"]).render(
        messages=prompt["messages"],
        date_string=prompt["date"],
        bos_token=known["bos_token"],
        add_generation_prompt=True,
    )
    return tokenizer.encode(text, add_special_tokens=False).ids


answers = []
for prompt in request["prompts"]:
    input_ids = encode(prompt)
    new_ids = generate(input_ids, request["max_new_tokens"])
    answers.append({"prompt": input_ids, "ids": new_ids, "text": tokenizer.decode(new_ids)})
sys.stdout.write(json.dumps(answers) + "\n")
