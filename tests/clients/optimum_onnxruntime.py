"""optimum's ORTModelForCausalLM, in an environment of its own (it needs transformers 4).

.clients/optimum/bin/python optimum_onnxruntime.py FOLDER < request.json
"""

import json
import sys

from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

folder, request = sys.argv[1], json.load(sys.stdin)
max_new_tokens = request["max_new_tokens"]

tokenizer = AutoTokenizer.from_pretrained(folder)
model = ORTModelForCausalLM.from_pretrained(folder)


def encode(prompt):
    """Return the model's inputs for a text or for a chat."""
    if "text" in prompt:
        text = prompt["text"]
        inputs = tokenizer(text, return_tensors="pt")
    else:
        inputs = tokenizer.apply_chat_template(
            prompt["messages"],
            date_string=prompt["date"],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
    return inputs


answers = []
for prompt in request["prompts"]:
    inputs = encode(prompt)
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    input_ids = inputs["input_ids"][0].tolist()
    new_ids = output[0, len(input_ids) :].tolist()
    if new_ids[-1] in model.config.eos_token_id:
        new_ids.pop()
    answers.append({"prompt": input_ids, "ids": new_ids, "text": tokenizer.decode(new_ids)})
sys.stdout.write(json.dumps(answers) + "\n")
