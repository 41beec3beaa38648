"""onnxruntime-genai: the folder as it is, with genai's own tokenizer and chat template.

python genai.py FOLDER < request.json
"""

import json
import sys
from pathlib import Path

import onnxruntime_genai

folder, request = sys.argv[1], json.load(sys.stdin)
max_new_tokens = request["max_new_tokens"]
ends = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["eos_token_id"]
stops = ends if isinstance(ends, list) else [ends]

model = onnxruntime_genai.Model(folder)
tokenizer = onnxruntime_genai.Tokenizer(model)


def generate(input_ids):
    """Return the new tokens."""
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(input_ids) + max_new_tokens, do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(input_ids)
    while not generator.is_done():
        generator.generate_next_token()
    new_ids = generator.get_sequence(0)[len(input_ids) :].tolist()
    if new_ids[-1] in stops:
        new_ids.pop()
    return new_ids


def render(prompt):
    """Return the text of a prompt; genai's tokenizer puts no token in front of it by itself."""
    if "text" in prompt:
        return "<|begin_of_text|>" + prompt["text"]
    # genai gives a template no variables, but it takes another template.
    known = json.loads(Path(folder, "tokenizer_config.json").read_text(encoding="utf-8"))
    template = '{%- set date_string = "' + prompt["date"] + '" %}' + known["chat_template"]
    messages = json.dumps(prompt["messages"])
    return tokenizer.apply_chat_template(messages, template_str=template)


answers = []
for prompt in request["prompts"]:
    text = render(prompt)
    input_ids = tokenizer.encode(text)
    new_ids = generate(input_ids)
    written = tokenizer.decode(new_ids)
    answers.append({"prompt": input_ids.tolist(), "ids": new_ids, "text": written})
sys.stdout.write(json.dumps(answers) + "\n")
