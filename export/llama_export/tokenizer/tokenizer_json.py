"""Write the `tokenizer.json` of a Llama 3 vocabulary, for clients that read no other file.

It is the file that Meta ships, made from the vocabulary alone. The module knows no folder, and does
without the `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llama_export.tokenizer.byte_letters import spell
from llama_export.tokenizer.special_tokens import BEGIN_OF_TEXT, LLAMA3_SPLIT
from llama_export.tokenizer.vocabulary import Vocabulary


def tokenizer_json_bytes(vocabulary: Vocabulary) -> bytes:
    """Render a `tokenizer.json` as Hugging Face's libraries read it, always with the same bytes."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": name, **flags, "special": True}
            for name, token_id in vocabulary.special_tokens.items()
        ],
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZER,
        "post_processor": _post_processor(vocabulary.special_tokens[BEGIN_OF_TEXT]),
        "decoder": _byte_level(add_prefix_space=True, use_regex=True),
        "model": {
            **_BPE,
            "vocab": {spell(token): rank for rank, token in enumerate(vocabulary.tokens)},
            "merges": _merges(vocabulary.ranks),
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _merges(ranks: Mapping[bytes, int]) -> list[str]:
    """List every pair of tokens that makes a token, by the rank of the result, then of the parts.

    This is how Meta's vocabulary became the tokenizer.json that they ship:
    https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/convert_slow_tokenizer.py
    """
    by_rank = sorted(ranks, key=ranks.__getitem__)
    spelt = [spell(token) for token in by_rank]
    merges: list[str] = []
    for token in by_rank:
        pairs = sorted(
            (ranks[token[:cut]], ranks[token[cut:]])
            for cut in range(1, len(token))
            if token[:cut] in ranks and token[cut:] in ranks
        )
        merges += [f"{spelt[left]} {spelt[right]}" for left, right in pairs]
    return merges


def _byte_level(
    *, add_prefix_space: bool, use_regex: bool, trim_offsets: bool = True
) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": trim_offsets,
        "use_regex": use_regex,
    }


_PRE_TOKENIZER: dict[str, Any] = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": LLAMA3_SPLIT},
            "behavior": "Isolated",
            "invert": False,
        },
        _byte_level(add_prefix_space=False, use_regex=False),
    ],
}

_BPE: dict[str, Any] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": True,
}


def _post_processor(bos_token_id: int) -> dict[str, Any]:
    """Put `<|begin_of_text|>` before a text, and before each text of a pair."""

    def bos(type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": BEGIN_OF_TEXT, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    token = {"id": BEGIN_OF_TEXT, "ids": [bos_token_id], "tokens": [BEGIN_OF_TEXT]}
    template = {
        "type": "TemplateProcessing",
        "single": [bos(0), text("A", 0)],
        "pair": [bos(0), text("A", 0), bos(1), text("B", 1)],
        "special_tokens": {BEGIN_OF_TEXT: token},
    }
    byte_level = _byte_level(add_prefix_space=True, use_regex=True, trim_offsets=False)
    return {"type": "Sequence", "processors": [byte_level, template]}
