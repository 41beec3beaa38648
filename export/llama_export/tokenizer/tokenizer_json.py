"""Hugging Face's `tokenizer.json` of a Llama 3: parse it into a vocabulary, write it from one.

The file describes every step of a tokenizer. Whatever differs from Llama 3's (another split
pattern, a normalizer, merges that do not follow from the ranks) would give other ids, so it is
refused by name. The module knows no folder, and does without the `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llama_export.errors import TokenizerError
from llama_export.tokenizer.special_tokens import (
    BEGIN_OF_TEXT,
    ESSENTIAL_TOKENS,
    LLAMA3_SPLIT,
    SPECIAL_TOKENS,
)
from llama_export.tokenizer.vocabulary import (
    GET_ANOTHER,
    NOT_LLAMA3,
    Vocabulary,
    check_ranks,
    check_special_tokens,
    some,
)
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

# Llama 3's takes 9 to 17 MB, by how it is written; one of 256,000 tokens 33 MB.
MOST_BYTES = 64 * 2**20


def parse_tokenizer_json(data: bytes, where: str) -> Vocabulary:
    """Parse the bytes of a `tokenizer.json`.

    Args:
        data: bytes of the file.
        where: name of the file, for messages.

    Raises:
        TokenizerError: the file is damaged, or would tokenise differently from Llama 3.
    """
    try:
        raw = parse_object(data, most_bytes=MOST_BYTES)
    except JsonFault as fault:
        message = f"{where} is not valid JSON: {fault}"
        raise TokenizerError(message, GET_ANOTHER) from None
    try:
        _refuse(_other_pieces(raw), where)
        special_tokens = _special_tokens(raw["added_tokens"], where)
        # Some programs list the special tokens among the others too.
        ranks = {
            bytes([_BYTE_OF[character] for character in token]): rank
            for token, rank in raw["model"]["vocab"].items()
            if special_tokens.get(token) != rank
        }
        check_ranks(ranks, where)
        faults = _other_specials(special_tokens, len(ranks))
        faults += _other_merges(raw["model"]["merges"], ranks)
        _refuse(faults, where)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        found = shown_name(repr(error), 200)
        message = f"{where} is not built like the tokenizer.json of a Llama 3: {found}"
        raise TokenizerError(message, NOT_LLAMA3) from None
    return Vocabulary(ranks, special_tokens)


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
            "vocab": {_spell(token): rank for rank, token in enumerate(vocabulary.tokens)},
            "merges": _merges(vocabulary.ranks),
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _refuse(faults: list[str], where: str) -> None:
    if faults:
        message = f"{where} would tokenise differently from Llama 3: " + "; ".join(faults)
        raise TokenizerError(message, NOT_LLAMA3)


def _other_pieces(raw: Mapping[str, Any]) -> list[str]:
    """List what differs from Llama 3 in the steps around the vocabulary."""
    faults = []
    if raw["normalizer"] is not None:
        faults.append(f"it has a normalizer ({some([raw['normalizer']['type']])})")
    if _steps(raw["pre_tokenizer"] or {}) != _steps(_PRE_TOKENIZER):
        faults.append("its pre_tokenizer is not Llama 3's split pattern and bytes")
    decoder = (raw["decoder"] or {}).get("type")
    if decoder != "ByteLevel":
        faults.append(f"its decoder is {some([decoder])}, not 'ByteLevel'")
    for key, expected in _BPE.items():
        found = raw["model"].get(key)
        # An empty prefix is no prefix, and an absent flag is false.
        if (found or None) != (expected or None):
            faults.append(f"model.{key} is {some([found])}, not {expected!r}")
    plain = [token["content"] for token in raw["added_tokens"] if token["special"] is not True]
    if plain:
        faults.append(f"{len(plain)} added tokens are not special ({some(plain)})")
    return faults


def _steps(pre_tokenizer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a sequence, without what moves only offsets."""
    steps = pre_tokenizer.get("pretokenizers", [])
    return [{key: step[key] for key in step if key != "trim_offsets"} for step in steps]


def _special_tokens(added: list[dict[str, Any]], where: str) -> dict[str, int]:
    tokens = [(token["content"], token["id"]) for token in added]
    check_special_tokens(tokens, where)
    return dict(sorted(tokens, key=lambda token: token[1]))


def _other_specials(special_tokens: Mapping[str, int], first_id: int) -> list[str]:
    """List what is wrong with the special tokens' ids; a reserved token may have any name."""
    ids = list(special_tokens.values())
    count = len(SPECIAL_TOKENS)
    if ids != list(range(first_id, first_id + len(ids))) or len(ids) < count:
        return [f"its special tokens are not {count} or more ids in a row from {first_id} on"]
    places = {name: first_id + SPECIAL_TOKENS.index(name) for name in ESSENTIAL_TOKENS}
    return [
        f"{name} has id {special_tokens.get(name)}, not {token_id}"
        for name, token_id in places.items()
        if special_tokens.get(name) != token_id
    ]


def _other_merges(merges: list[Any], ranks: Mapping[bytes, int]) -> list[str]:
    """Compare the file's merges, in either spelling, with those that the ranks imply."""
    written = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    implied = _merges(ranks)
    if written == implied:
        return []
    more, fewer = set(written) - set(implied), set(implied) - set(written)
    if more or fewer:
        examples = some(sorted(more) or sorted(fewer))
        return [f"it has {len(more)} merges too many and {len(fewer)} too few ({examples})"]
    rank_of = {_spell(token): rank for token, rank in ranks.items()}
    results = [rank_of[merge.replace(" ", "")] for merge in written]
    return [] if results == sorted(results) else ["its merges are not in the order of the ids"]


def _merges(ranks: Mapping[bytes, int]) -> list[str]:
    """List every pair of tokens that makes a token, by the rank of the result, then of the parts.

    This is how Meta's vocabulary became the tokenizer.json that they ship:
    https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/convert_slow_tokenizer.py
    """
    by_rank = sorted(ranks, key=ranks.__getitem__)
    spelt = [_spell(token) for token in by_rank]
    merges: list[str] = []
    for token in by_rank:
        pairs = sorted(
            (ranks[token[:cut]], ranks[token[cut:]])
            for cut in range(1, len(token))
            if token[:cut] in ranks and token[cut:] in ranks
        )
        merges += [f"{spelt[left]} {spelt[right]}" for left, right in pairs]
    return merges


def _byte_alphabet() -> dict[str, int]:
    """Map GPT-2's printable stand-ins to bytes: themselves where printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    stand_ins = {chr(0x100 + index): byte for index, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | stand_ins


_BYTE_OF = _byte_alphabet()
_CHARACTER_OF = {byte: character for character, byte in _BYTE_OF.items()}


def _spell(token: bytes) -> str:
    return "".join([_CHARACTER_OF[byte] for byte in token])


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
