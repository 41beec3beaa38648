"""Test vectors of small tokenizers of the other kinds that a bundle can have.

Their files are kept beside the vectors, so that an app reads them as it reads a bundle's. This
module knows which texts they are asked; it does not know how they were made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_export.tokenizer.torture import TORTURE
from tokenizer_vectors import CLASSES, TEXTS

FORMAT_VERSION = 1
FOLDER = Path(__file__).resolve().parents[1] / "apps" / "shared" / "vectors" / "tokenizers"
OWN_TEXTS: dict[str, str] = {
    "special tokens are text": "<|im_start|>user\nHi<|im_end|><|endoftext|> <s>a</s><unk>",
    "added tokens": "a<think>b</think> <think>  c  <tool_call>d <tool> e<tool>\n\nf[ARGS]g [ARGS]",
    "added tokens, broken": "<thin<think<think>k> <<tool>> [ARGS [ARGS]]",
    "one added token begins like another": "<tool>s <tool>  <tool>ss <tool_call>",
    "added tokens alone": "<tool>[ARGS]<think><tool_call><tool>",
    "control tokens beside added ones": "<turn><tool>[PAD]<tool><turn>",
    "digits": "0 12 345 6789 a1b22c \u0661\u0662 \u00bd\u2167 12.5",
    "digits of Unicode 17, which no pattern knows": "a\U00011de0\U00011de1b 1\U00011de22",
    "a byte's name is text": "<0x41><0x0A><0xZZ>",
    "blanks at the ends": "   a   ",
    "blanks and their letter": " \u2581 \u2581",
    "long s": "it'\u017f we'LL",
    "a long word": "daughter" * 50,
}
# What random texts are put together from: whatever some step looks for, and its neighbours.
_BITS = (
    *" aethgkindrl12\u00e9\u4e2d|\n\t\u2581'.<>",
    *"\u0661\u00bd\U00011de1\U0001f600\u200d\u0301\u3000\x85\x1c",
    *("<think>", "</think>", "<tool>", "[ARGS]", "<tool_call>", "<s>", "<unk>", "[PAD]", "<0x41>"),
    *("  ", "\r\n", "'s", "'LL", "'\u017f", "the ", "king", "daughter", "123", "<|im_end|>"),
)
_RANDOM_TEXTS, _MOST_BITS = 40, 30
_LISTS, _MOST_IDS = 12, 16


def small_tokenizer_vectors() -> Mapping[str, Any]:
    """Return the vectors of all small tokenizers."""
    loaded = {folder.name: load_tokenizer(folder) for folder in sorted(FOLDER.iterdir())}
    asked = dict(texts())
    return {
        "format_version": FORMAT_VERSION,
        "tokenizers": [_described(name, tokenizer) for name, tokenizer in loaded.items()],
        "texts": [{"name": name, "text": text} for name, text in asked.items()],
        "ids": [
            {"name": name, "ids": [tokenizer.encode(text) for text in asked.values()]}
            for name, tokenizer in loaded.items()
        ],
        "continued": list(_continued(loaded, tuple(asked.values()))),
        "decode": [
            case for name, tokenizer in loaded.items() for case in _decoded(name, tokenizer)
        ],
    }


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name of each text that is encoded, and the text."""
    yield from OWN_TEXTS.items()
    for number, text in enumerate(TORTURE):
        yield f"torture {number}", text
    for name in ("code", "line ends", "other blanks", "controls", "digits and letters"):
        yield name, TEXTS[name]
    random = Random(14)
    for number in range(_RANDOM_TEXTS):
        count = 1 + int(random.random() * _MOST_BITS)
        bits = [_BITS[int(random.random() * len(_BITS))] for _ in range(count)]
        yield f"random {number}", "".join(bits)
    yield "the class of each character", "".join(f"{each}'s" for each in CLASSES.values())


def _continued(
    loaded: Mapping[str, Tokenizer], asked: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield the ids of texts behind something else, where they are not those of a text alone."""
    for name, tokenizer in loaded.items():
        ids = [tokenizer.encode(text, continues=True) for text in asked]
        if ids != [tokenizer.encode(text) for text in asked]:
            yield {"name": name, "ids": ids}


def _described(name: str, tokenizer: Tokenizer) -> Mapping[str, Any]:
    special = tokenizer.special_tokens
    names = {each: tokenizer.token_name(each) for each in range(tokenizer.vocab_size)}
    return {
        "name": name,
        "vocab_size": tokenizer.vocab_size,
        "prefix_ids": list(tokenizer.prefix_ids),
        "special_tokens": dict(special),
        "other_names": {text: each for each, text in names.items() if text and text not in special},
    }


def _decoded(name: str, tokenizer: Tokenizer) -> Iterator[Mapping[str, Any]]:
    random = Random(name)
    for number in range(_LISTS):
        count = 1 + int(random.random() * _MOST_IDS)
        ids = [int(random.random() * tokenizer.vocab_size) for _ in range(count)]
        yield _streamed(f"{name}, random {number}", name, tokenizer, ids)
    for number in (4, 9, 10, 14, 15, 22):
        ids = [*tokenizer.prefix_ids, *tokenizer.encode(TORTURE[number])]
        yield _streamed(f"{name}, torture {number}", name, tokenizer, ids)


def _streamed(name: str, kind: str, tokenizer: Tokenizer, ids: list[int]) -> Mapping[str, Any]:
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(token_id) for token_id in ids]
    rest = stream.flush()
    text = tokenizer.decode(ids)
    return {
        "name": name,
        "tokenizer": kind,
        "ids": ids,
        "text": text,
        "pieces": pieces,
        "rest": rest,
    }
