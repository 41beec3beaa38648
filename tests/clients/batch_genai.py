"""onnxruntime-genai: several texts of unequal length at once.

python batch_genai.py FOLDER < request.json
"""

import json
import sys

import onnxruntime_genai

folder, request = sys.argv[1], json.load(sys.stdin)
texts, max_new_tokens = request["texts"], request["max_new_tokens"]

model = onnxruntime_genai.Model(folder)
tokenizer = onnxruntime_genai.Tokenizer(model)
input_ids = tokenizer.encode_batch(texts).as_numpy()
width = input_ids.shape[1]
parameters = onnxruntime_genai.GeneratorParams(model)
parameters.set_search_options(
    max_length=width + max_new_tokens, batch_size=len(texts), do_sample=False
)
generator = onnxruntime_genai.Generator(model, parameters)
generator.append_tokens(input_ids)
while not generator.is_done():
    generator.generate_next_token()
new_ids = [generator.get_sequence(row)[width:].tolist() for row in range(len(texts))]

sys.stdout.write(json.dumps(new_ids) + "\n")
