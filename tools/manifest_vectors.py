"""Test vectors of manifests: texts that are good, and texts that a reader must refuse.

Python's reader says which is which; where an app has no use for a field it may let more through,
but nothing of what is here. This module knows the fields; it does not know who reads the vectors.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

FORMAT_VERSION = 1
_HASH = "0123456789abcdef" * 4
_ABSENT = object()
_TURN = {"prefix": [7, "user\n"], "suffix": [9]}
BASE: Mapping[str, Any] = {
    "format_version": 2,
    "target": "onnx",
    "artifact": "model.onnx",
    "model": {"name": "tiny", "hub_id": None, "revision": None, "config": {"vocab_size": 512}},
    "graph": {
        "inputs": [
            {"name": "input_ids", "dtype": "int64", "shape": ["batch_size", "sequence_length"]}
        ],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch_size", 1, 512]}],
        "kv_cache": "io",
        "max_context": 64,
        "all_logits": False,
    },
    "quantization": {
        "recipe": "int4",
        "group_size": 32,
        "bits_per_weight": 4.5,
        "sqnr_db": None,
        "tensors": {},
    },
    "tokenizer": {
        "file": "tokenizer.json",
        "vocab_size": 512,
        "bos_token_id": 1,
        "stop_token_ids": [2, 9],
    },
    "files": {
        "model.onnx": {"sha256": _HASH, "size_bytes": 1000},
        "model.onnx_data": {"sha256": _HASH, "size_bytes": 5_000_000_000},
        "tokenizer.json": {"sha256": _HASH, "size_bytes": 0},
    },
    "created_with": {"llama-export": "0.1.0"},
    "runs_here": True,
    "memory": {"resident_bytes": 80_000_000, "kv_bytes_per_token": 6144},
    "chat": {
        "reason": None,
        "turns": {
            "begin": [1],
            "no_system": ["Today: ", {"strftime": "%d %b %Y"}, "\n"],
            "system": _TURN,
            "user": _TURN,
            "assistant": _TURN,
            "answer": ["assistant\n"],
            "trim": ["user", "assistant"],
            "thoughts_end": None,
        },
    },
}
_NONE = {"turns": None, "reason": "the model has no chat template: it goes on with a text"}
GOOD: Mapping[str, Mapping[tuple[str, ...], object]] = {
    "a whole manifest": {},
    "no turns, and why": {("chat",): _NONE},
    "an older export, without keys for apps": {("memory",): _ABSENT, ("chat",): _ABSENT},
    "a text without a beginning": {("tokenizer", "bos_token_id"): None},
    "a beginning of its own": {("tokenizer", "prefix_token_ids"): [1, 5]},
    "no system message": {("chat", "turns", "system"): None},
    "a system message inside a user's": {
        ("chat", "turns", "system"): {"user": "first", "before": "", "after": "\n\n"}
    },
    "thoughts left out": {("chat", "turns", "thoughts_end"): "</think>"},
    "an artifact that is a folder": {
        ("artifact",): "model.mlpackage",
        ("files", "model.mlpackage/Manifest.json"): {"sha256": _HASH, "size_bytes": 3},
    },
}
# What is changed, what to, and a word of Python's message.
BAD: Mapping[str, tuple[tuple[str, ...], object, str]] = {
    "a newer format": (("format_version",), 3, "format_version 3"),
    "a format that is text": (("format_version",), "2", "format_version"),
    "no files": (("files",), {}, "not among the files"),
    "an artifact that is not there": (("artifact",), "other.onnx", "not among the files"),
    "an artifact outside": (("artifact",), "../model.onnx", "leads out of the folder"),
    "a tokenizer that is not there": (("tokenizer", "file"), "x.json", "not among the files"),
    "a tokenizer elsewhere": (("tokenizer", "file"), "/etc/passwd", "is not relative"),
    "no vocabulary": (("tokenizer", "vocab_size"), 0, "vocab_size"),
    "a beginning outside the vocabulary": (("tokenizer", "bos_token_id"), 512, "vocabulary"),
    "no end": (("tokenizer", "stop_token_ids"), [], "stop_token_ids"),
    "an end outside the vocabulary": (("tokenizer", "stop_token_ids"), [512], "vocabulary"),
    "no context": (("graph", "max_context"), 0, "max_context"),
    "a context without end": (("graph", "max_context"), 10**12, "max_context"),
    "no target": (("target",), None, "target"),
    "a negative memory": (("memory", "resident_bytes"), -1, "memory.resident_bytes"),
    "half a memory": (("memory", "kv_bytes_per_token"), _ABSENT, "memory.kv_bytes_per_token"),
    "no turns and no reason": (("chat",), {"turns": None, "reason": None}, "chat.reason"),
    "turns without users": (("chat", "turns", "user"), _ABSENT, "chat.turns.user"),
    "a token outside the vocabulary": (("chat", "turns", "begin"), [512], "chat.turns.begin"),
    "a piece that is a list": (("chat", "turns", "answer"), [[1]], "chat.turns.answer"),
    "a time in the system's words": (
        ("chat", "turns", "answer"),
        [{"strftime": "%c"}],
        "chat.turns.answer",
    ),
    "half a surrogate pair": (("chat", "turns", "answer"), ["\ud800"], "chat.turns.answer"),
    "trim of no role": (("chat", "turns", "trim"), True, "chat.turns.trim"),
    "trim of a role that is none": (("chat", "turns", "trim"), ["tool"], "chat.turns.trim"),
    "no word of thoughts": (("chat", "turns", "thoughts_end"), _ABSENT, "chat.turns.thoughts_end"),
    "thoughts that end with nothing": (
        ("chat", "turns", "thoughts_end"),
        "",
        "chat.turns.thoughts_end",
    ),
    "no word of the system": (("chat", "turns", "system"), _ABSENT, "chat.turns.system"),
    "a system message somewhere else": (
        ("chat", "turns", "system"),
        {"user": "second", "before": "", "after": ""},
        "chat.turns.system.user",
    ),
    "a system message inside a message, without a text": (
        ("chat", "turns", "system"),
        {"user": "first", "before": ""},
        "chat.turns.system.after",
    ),
}
_PATHS = {
    "a file in the folder above": "../x",
    "a file above in the middle": "a/../../x",
    "a file of the system": "/etc/passwd",
    "a file on a drive": "C:\\x",
    "a file with a backslash": "a\\b",
    "a file at home": "~/x",
    "an empty part": "a//b",
    "a dot": "./a",
    "a control character": "a\x00b",
    "the manifest itself": "manifest.json",
    "no name": "",
}
_ENTRIES: Mapping[str, object] = {
    "a file without a hash": {"size_bytes": 3},
    "a file without a length": {"sha256": _HASH},
    "a short hash": {"sha256": _HASH[1:], "size_bytes": 3},
    "a hash in capitals": {"sha256": _HASH.upper(), "size_bytes": 3},
    "a negative length": {"sha256": _HASH, "size_bytes": -1},
    "a length that is a fraction": {"sha256": _HASH, "size_bytes": 1.5},
    "a length beyond 64 bits": {"sha256": _HASH, "size_bytes": 2**63},
    "an entry that is a number": 3,
}
_TEXTS = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "null": "null",
    "a key twice": '{"format_version": 2, "format_version": 2}',
    "not a number": '{"format_version": NaN}',
    "nested without end": "[" * 5000,
}


def manifest_vectors() -> Mapping[str, Any]:
    """Return the vectors of manifests."""
    return {
        "format_version": FORMAT_VERSION,
        "good": [{"name": name, "text": _changed(changes)} for name, changes in GOOD.items()],
        "bad": [{"name": name, "text": text, "says": word} for name, text, word in _bad()],
    }


def _bad() -> Iterator[tuple[str, str, str]]:
    """Yield the name of each bad manifest, its text, and a word of Python's message."""
    for name, (place, value, word) in BAD.items():
        yield name, _changed({place: value}), word
    sound = {"sha256": _HASH, "size_bytes": 3}
    for name, path in _PATHS.items():
        yield name, _changed({("files", path): sound}), "named by a path inside the folder"
    for name, entry in _ENTRIES.items():
        yield name, _changed({("files", "x"): entry}), "files.x"
    for name, text in _TEXTS.items():
        yield name, text, "manifest.json"


def _changed(changes: Mapping[tuple[str, ...], object]) -> str:
    tree: Any = copy.deepcopy(dict(BASE))
    for (*outer, last), value in changes.items():
        owner = tree
        for key in outer:
            owner = owner[key]
        if value is _ABSENT:
            del owner[last]
        else:
            owner[last] = value
    return json.dumps(tree, separators=(",", ":"))
