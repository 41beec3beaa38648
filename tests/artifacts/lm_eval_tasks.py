"""Tasks in lm-eval's YAML with their data, and a checkpoint in lm-eval's own adapter."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "Peru": "Lima",
}
_METRICS = """metric_list:
  - metric: {0}
    aggregation: {1}
    higher_is_better: true
metadata:
  version: 1.0
"""
_HEAD = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
"""
_CHOICE = """fewshot_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
"""
_ROLLING = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[answer]}}."
"""
_WRITING = """output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 6
"""


def write_tasks(folder: Path) -> Path:
    """Write three tasks on capitals: `capitals`, `capitals_text` and `capitals_written`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "capitals.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in _documents()), encoding="utf-8")
    for name, body, metric in (
        ("capitals", _CHOICE, ("acc", "mean")),
        ("capitals_text", _ROLLING, ("byte_perplexity", "weighted_perplexity")),
        ("capitals_written", _WRITING, ("exact_match", "mean")),
    ):
        head = _HEAD.format(name=name, data=data)
        text = head + body + _METRICS.format(*metric)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def _documents():
    names = list(CAPITALS.values())
    for index, (country, capital) in enumerate(CAPITALS.items()):
        others = [names[(index + step) % len(names)] for step in (1, 3)]
        choices = [capital, others[0], f"{others[1]} or {others[0]}"]
        turn = index % 3
        choices = choices[turn:] + choices[:turn]
        question = f"What is the capital of {country}?"
        yield {"question": question, "choices": choices, "answer": choices.index(capital)}


def request(kind: str, *arguments: object) -> SimpleNamespace:
    """Return a request as the harness makes it."""
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0, metadata=("capitals", 0, 1))


def lm_eval_checkpoint(folder: Path, tokenizer_folder: Path, max_length: int):
    """Open a checkpoint in transformers, in float32, as lm-eval's own adapter does."""
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=max_length)
