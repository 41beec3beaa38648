"""Small tokenizer.json files of the kinds that Llamas and their fine-tunes come with."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import tokenizers
from artifacts.sentencepieces import LINES, trained
from tokenizers import decoders, models, pre_tokenizers, trainers

from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama_export.tokenizer.special_tokens import LLAMA3_SPLIT

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def _trained(*steps: pre_tokenizers.PreTokenizer) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(CONTROL), initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    return made


def _smollm2() -> dict[str, Any]:
    """GPT-2's splitting, each digit for itself, and no token before a text."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return as_document(_trained(digits, pre_tokenizers.ByteLevel(add_prefix_space=False)))


def _llama3() -> dict[str, Any]:
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3_SPLIT), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made = _trained(split, letters)
    name = CONTROL[0]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, 0)]
    )
    return as_document(made)


def _distilled() -> dict[str, Any]:
    """Renamed control tokens, and added tokens that are none, as DeepSeek's distillations have."""
    document = _llama3()
    size = max(document["model"]["vocab"].values()) + 1
    document["added_tokens"][1]["content"] = "<\uff5cUser\uff5c>"
    document["model"]["vocab"] = {
        "<\uff5cUser\uff5c>" if token == CONTROL[1] else token: token_id
        for token, token_id in document["model"]["vocab"].items()
    }
    plain = {**document["added_tokens"][0], "special": False}
    document["added_tokens"] += [
        {**plain, "id": size, "content": "<think>"},
        {**plain, "id": size + 1, "content": "<tool_call>", "lstrip": True},
    ]
    return document


def _with_gap() -> dict[str, Any]:
    """Ids that nothing has, before a token to pad with at the end of a padded table."""
    document = _llama3()
    document["model"]["vocab"]["<|pad|>"] = 511
    document["added_tokens"].append(
        {**document["added_tokens"][0], "id": 511, "content": "<|pad|>"}
    )
    return document


def _no_flag() -> dict[str, Any]:
    document = _llama3()
    document["model"].pop("ignore_merges", None)
    document["model"]["merges"] = [
        " ".join(merge) if isinstance(merge, list) else merge
        for merge in document["model"]["merges"]
    ]
    return document


def _converted() -> dict[str, Any]:
    return json.loads(SentencePieceTokenizer.from_bytes(trained()).files()["tokenizer.json"])


def _metaspace() -> dict[str, Any]:
    """What transformers 5 saves of a Llama 2."""
    step = {"replacement": "\u2581", "prepend_scheme": "first", "split": False}
    pre_tokenizer = {"type": "Metaspace", **step}
    return _converted() | {"normalizer": None, "pre_tokenizer": pre_tokenizer}


def _unigram() -> dict[str, Any]:
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    return as_document(made)


def _word_level() -> dict[str, Any]:
    made = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "king": 2}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<unk>", "<s>"])
    return as_document(made)


def as_document(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "smollm2": _smollm2,
    "llama3": _llama3,
    "distilled": _distilled,
    "gap": _with_gap,
    "no flag": _no_flag,
    "converted": _converted,
    "metaspace": _metaspace,
    "unigram": _unigram,
    "word level": _word_level,
}


@cache
def json_bytes(kind: str) -> bytes:
    """Return the content of a tokenizer.json."""
    return json.dumps(KINDS[kind](), ensure_ascii=False).encode()
