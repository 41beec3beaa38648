"""A `tokenizer.json` made of a SentencePiece model, for clients that read no other file.

It is given out only when it was proved: it encodes a text of many scripts and odd blanks with the
same ids as the library `sentencepiece`. What it cannot say (a unigram model, some normalisers)
fails that proof. The module reads no file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from llama_export.errors import TokenizerError
from llama_export.tokenizer.sentencepiece_model import (
    BPE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
)
from llama_export.tokenizer.settings import AddedToken
from llama_export.tokenizer.text import BLANK_LETTER
from llama_export.tokenizer.torture import TORTURE

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def proved_json(
    model: SentencePieceModel,
    added: Sequence[AddedToken],
    prefix_ids: Sequence[int],
    encode: Callable[[str], list[int]],
) -> bytes | None:
    """Make a `tokenizer.json`, and compare its ids with the library's.

    Args:
        model: the model.
        added: tokens that were added to it.
        prefix_ids: ids before every text.
        encode: function that encodes text by the model's own library.

    Returns:
        None: none can be made that gives the same ids.
    """
    if model.model_type != BPE or model.blank_as_suffix or not model.escapes_blanks:
        return None
    from llama_export.tokenizer.json_tokenizer import JsonTokenizer

    data = sentencepiece_json(model, added, prefix_ids)
    try:
        made = JsonTokenizer.from_bytes(data)
        same = all(made.encode(text) == encode(text) for text in TORTURE)
        same = same and made.prefix_ids == tuple(prefix_ids)
    except TokenizerError:
        return None
    return data if same else None


def sentencepiece_json(
    model: SentencePieceModel, added: Sequence[AddedToken], prefix_ids: Sequence[int]
) -> bytes:
    """Render the `tokenizer.json` of a BPE model, always with the same bytes."""
    names = {each.token_id: each.name for each in added}
    prefix = [(names.get(each) or model.pieces[each].text, each) for each in prefix_ids]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*_own_tokens(model), *map(_added_token, added)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(model)},
        "pre_tokenizer": None,
        "post_processor": _post_processor(prefix),
        "decoder": {"type": "Sequence", "decoders": _decoders(model)},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": next((p.text for p in model.pieces if p.kind == UNKNOWN), None),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": {piece.text: token_id for token_id, piece in enumerate(model.pieces)},
            "merges": _merges(model),
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _own_tokens(model: SentencePieceModel) -> list[dict[str, Any]]:
    kinds = {CONTROL: True, UNKNOWN: True, USER_DEFINED: False}
    return [
        {
            "id": token_id,
            "content": piece.text,
            **dict.fromkeys(_FLAGS, False),
            "special": kinds[piece.kind],
        }
        for token_id, piece in enumerate(model.pieces)
        if piece.kind in kinds
    ]


def _added_token(token: AddedToken) -> dict[str, Any]:
    flags = {flag: token.flags.get(flag, False) for flag in (*_FLAGS, "special")}
    return {"id": token.token_id, "content": token.name, **flags}


def _merges(model: SentencePieceModel) -> list[list[str]]:
    """List every pair of pieces that makes a piece, in the order in which they are put together.

    transformers' older form joins a pair by a blank; a list is the same, whatever the pieces hold.
    """
    ids = {p.text: token_id for token_id, p in enumerate(model.pieces) if p.kind == NORMAL}
    ranked = sorted(ids.items(), key=lambda item: (-model.pieces[item[1]].score, item[1]))
    merges: list[list[str]] = []
    for text, _ in ranked:
        cuts = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        pairs = [(left, right) for left, right in cuts if left in ids and right in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += [[left, right] for left, right in pairs]
    return merges


def _normalizers(model: SentencePieceModel) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if model.charsmap:
        charsmap = base64.b64encode(model.charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if model.removes_blanks:
        # At the end it removes its own letter for a blank too, wherever that came from.
        steps.append(_replace({"Regex": rf"\A +|[ {BLANK_LETTER}]+\z"}, ""))
        steps.append(_replace({"Regex": " {2,}"}, " "))
    if model.adds_dummy_prefix and model.removes_blanks:
        # Prepend, after a step that removes, makes transformers.js put it into the wrong place.
        steps.append(_replace({"Regex": r"\A(?=[\s\S])"}, BLANK_LETTER))
    elif model.adds_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": BLANK_LETTER})
    return [*steps, _replace({"String": " "}, BLANK_LETTER)]


def _decoders(model: SentencePieceModel) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [_replace({"String": BLANK_LETTER}, " ")]
    steps += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if model.adds_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _post_processor(prefix: Sequence[tuple[str, int]]) -> dict[str, Any] | None:
    """Put tokens before a text, and before each text of a pair."""
    if not prefix:
        return None

    def part(name: str, type_id: int) -> list[dict[str, Any]]:
        own = [{"SpecialToken": {"id": token, "type_id": type_id}} for token, _ in prefix]
        return [*own, {"Sequence": {"id": name, "type_id": type_id}}]

    return {
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": [*part("A", 0), *part("B", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [token_id], "tokens": [token]} for token, token_id in prefix
        },
    }
