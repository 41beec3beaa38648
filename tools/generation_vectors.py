"""Test vectors of writing: reuse of the cache, stop texts, a full context, and whole texts.

The model of the whole texts is arithmetic: each row of its cache is made of a token and its
position, and its logits of all rows, so that a wrong position or a row left over changes the text.
This module knows the generation code; it does not know who reads the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_export.generation.decoding import Generation
from llama_export.generation.overflow import find_overflow
from llama_export.generation.sampling import Sampling
from llama_export.generation.text_stream import TextStream
from llama_export.llama.intermediates import FloatArray

FORMAT_VERSION = 1
VOCABULARY = 64
_LOW = 2**32 - 1


def mix(one: int, other: int) -> int:
    """Return 32 bits that depend on all bits of two numbers of 32 bits."""
    mixed = (one ^ (other * 0x9E3779B1)) & _LOW
    mixed = ((mixed ^ mixed >> 16) * 0x85EBCA6B) & _LOW
    mixed = ((mixed ^ mixed >> 13) * 0xC2B2AE35) & _LOW
    return mixed ^ mixed >> 16


class RowModel:
    """A session whose logits depend on each token at its position.

    Args:
        max_context: number of positions.
    """

    def __init__(self, max_context: int) -> None:
        self.max_context = max_context
        self.tokens: list[int] = []
        self.rows: list[int] = []

    @property
    def position(self) -> int:
        """Number of tokens in the cache."""
        return len(self.rows)

    def keep_prefix_of(self, token_ids: Sequence[int]) -> int:
        """Forget what a text does not begin with, and return how many tokens remain."""
        shared = shared_length(self.tokens, token_ids)
        del self.tokens[shared:], self.rows[shared:]
        return shared

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return the logits `[V]` after the last of them."""
        for token in input_ids:
            self.rows.append(mix(token, len(self.rows)))
            self.tokens.append(token)
        state = 0
        for row in self.rows:
            state = mix(state, row)
        # Steps of 1/256 from -16 to 16: exact in float32.
        steps = [(mix(state, token) >> 19) - 4096 for token in range(VOCABULARY)]
        return np.array(steps, dtype=np.float32) / np.float32(256)


def shared_length(held: Sequence[int], token_ids: Sequence[int]) -> int:
    """Count the tokens that need no reading, as `PrefixCache` does; a test compares them."""
    shared = 0
    while shared < min(len(held), len(token_ids) - 1) and held[shared] == token_ids[shared]:
        shared += 1
    return shared


@dataclass(frozen=True)
class _Text:
    prompts: Sequence[Sequence[int]]
    max_tokens: int = 12
    stop_ids: Sequence[int] = ()
    penalty: float = 1.0
    max_context: int = 64


_PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
TEXTS: Mapping[str, _Text] = {
    "a text": _Text([_PROMPT]),
    "one token": _Text([_PROMPT], max_tokens=1),
    "a stop token": _Text([_PROMPT, [2], [7, 7, 7]], max_tokens=60, stop_ids=list(range(0, 64, 9))),
    "a stop token at once": _Text([_PROMPT], stop_ids=list(range(64))),
    "a penalty": _Text([_PROMPT], max_tokens=40, penalty=1.8),
    "a penalty spares stop tokens": _Text(
        [[5, 14, 23, 32, 41]], max_tokens=50, stop_ids=[5, 14, 23], penalty=1.3
    ),
    "a context that ends": _Text([_PROMPT], max_tokens=40, max_context=20),
    "a context with room for one": _Text([_PROMPT], max_context=8),
    "the same prompt again": _Text([_PROMPT, _PROMPT, _PROMPT], max_tokens=5),
    "a longer prompt": _Text([_PROMPT, [*_PROMPT, 8, 8]], max_tokens=5),
    "an edit in the middle": _Text([_PROMPT, [3, 1, 4, 2, 5, 9, 2, 6]], max_tokens=5),
    "a shorter prompt": _Text([_PROMPT, _PROMPT[:3]], max_tokens=5),
    "another prompt": _Text([_PROMPT, [60, 61]], max_tokens=5),
    "a prompt in three pieces": _Text(
        [[n % 61 for n in range(300)], [n % 61 for n in range(200)]], max_tokens=5, max_context=400
    ),
}
SHARED: Mapping[str, tuple[list[int], list[int]]] = {
    "nothing held": ([], [1, 2, 3]),
    "nothing alike": ([4, 5], [1, 2, 3]),
    "all alike, the last token is read again": ([1, 2, 3], [1, 2, 3]),
    "the text is longer": ([1, 2, 3], [1, 2, 3, 4, 5]),
    "the text is shorter": ([1, 2, 3, 4, 5], [1, 2, 3]),
    "parted in the middle": ([1, 2, 3, 4], [1, 2, 9, 4]),
    "parted at the beginning": ([1, 2], [9, 2]),
    "a text of one token": ([1, 2], [1]),
    "no text": ([1, 2], []),
}
STOPS: Mapping[str, tuple[list[str], list[str]]] = {
    "none": ([], ["Hello", " wor", "ld"]),
    "inside a piece": (["wor"], ["Hello", " wor", "ld"]),
    "over two pieces": (["orl"], ["Hello", " wor", "ld", "!"]),
    "over many pieces": (["abcdef"], ["xa", "b", "c", "", "d", "e", "fg", "h"]),
    "begun and not ended": (["abcdef"], ["xab", "cde", "x", "y"]),
    "begun at the end": (["abcdef"], ["xab", "cde"]),
    "begun again in itself": (["aab"], ["a", "a", "a", "b", "c"]),
    "the first of several": (["ld", "lo", "zz"], ["Hel", "lo wor", "ld"]),
    "a longer one that begins earlier": (["cd", "bcde"], ["ab", "cd", "e"]),
    "one that begins another": (["ab", "abc"], ["xa", "bc"]),
    "at the very beginning": (["He"], ["H", "ello"]),
    "blank lines": (["\n\n"], ["One.", "\n", "Two.", "\n", "\n", "Three."]),
    "of two code units": (["\U0001f600"], ["a", "\U0001f600", "b"]),
    "a character that is half alike": (["\U0001f600"], ["a\U0001f603", "b"]),
    "pieces without text": (["b"], ["", "", "a", "", "b"]),
}
OVERFLOWS: Mapping[str, tuple[list[int], int, int, int]] = {
    # tokens of each turn, the new message last; of the system message; the answer's; positions
    "all fits": ([10, 20, 30], 5, 100, 512),
    "exactly": ([100, 100, 40], 0, 500, 256),
    "one too many": ([100, 100, 41], 0, 500, 256),
    "a short answer needs little": ([100, 100, 50], 0, 3, 256),
    "the oldest go": ([50, 60, 70, 80, 90, 60, 20], 10, 512, 256),
    "a quarter is made free": ([40, 40, 40, 40, 40, 40, 40], 0, 512, 256),
    "all of them go": ([100, 100, 200], 10, 512, 256),
    "the message is too long": ([10, 10, 300], 0, 512, 256),
    "the system message is too long": ([10, 10, 30], 300, 512, 256),
    "both are too long together": ([10, 10, 150], 120, 512, 256),
    "the first message is too long": ([300], 0, 512, 256),
}


class Pieces:
    """A tokenizer and its decoder for tokens that stand for given texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def stream_decoder(self, **_: object) -> Pieces:
        """Return the decoder."""
        return self

    def push(self, token_id: int) -> str:
        """Return a token's text."""
        return self._texts[token_id]

    def flush(self) -> str:
        """Return what was held back: nothing."""
        return ""


def generation_vectors() -> Mapping[str, Any]:
    """Return the vectors of writing."""
    return {
        "format_version": FORMAT_VERSION,
        "shared": [
            {"name": name, "held": held, "ids": ids, "shared": shared_length(held, ids)}
            for name, (held, ids) in SHARED.items()
        ],
        "stop_texts": [_stopped(name, *case) for name, case in STOPS.items()],
        "overflow": [_overflowing(name, *case) for name, case in OVERFLOWS.items()],
        "texts": [_text(name, case) for name, case in TEXTS.items()],
    }


def _stopped(name: str, stops: list[str], pieces: list[str]) -> Mapping[str, Any]:
    tokenizer: Any = Pieces(pieces)
    stream = TextStream(_Tokens(len(pieces)), tokenizer, stop=stops)
    shown = list(stream)
    found = stream.completion
    return {
        "name": name,
        "stop": stops,
        "pieces": pieces,
        "shown": shown,
        "tokens": len(found.token_ids),
        "stopped": found.stats.stop_reason == "stop text",
    }


class _Tokens(Generation):
    """A generation that counts."""

    def __init__(self, tokens: int) -> None:
        model = RowModel(8)
        super().__init__(model, [0], sampling=Sampling(), stop_token_ids=(), max_tokens=1)
        self._tokens = tokens

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._tokens))


def _overflowing(
    name: str, turns: list[int], system: int, max_tokens: int, max_context: int
) -> Mapping[str, Any]:
    found = find_overflow(
        dialog_length(turns, system),
        turns=len(turns) - 1,
        max_tokens=max_tokens,
        max_context=max_context,
        larger_context="",
    )
    return {
        "name": name,
        "turns": turns,
        "system": system,
        "max_tokens": max_tokens,
        "max_context": max_context,
        "found": found
        and {
            "needed": found.needed,
            "dropped_turns": found.dropped_turns,
            "kept_tokens": found.kept_tokens,
            "too_long": found.too_long,
            "message": str(found),
        },
    }


def dialog_length(turns: Sequence[int], system: int) -> Callable[..., int]:
    """Return what counts the tokens of a dialog of turns of given lengths."""

    def length(dropped: int, *, has_system: bool = True) -> int:
        return sum(turns[dropped:]) + (system if has_system else 0)

    return length


def _text(name: str, case: _Text) -> Mapping[str, Any]:
    model = RowModel(case.max_context)
    runs = []
    for prompt in case.prompts:
        model.keep_prefix_of(prompt)
        generation = Generation(
            model,
            prompt,
            sampling=Sampling(temperature=0.0, repetition_penalty=case.penalty, seed=0),
            stop_token_ids=case.stop_ids,
            max_tokens=case.max_tokens,
            vocab_size=VOCABULARY,
        )
        ids = list(generation)
        stats = generation.stats
        runs.append(
            {
                "prompt": list(prompt),
                "reused": stats.reused_tokens,
                "ids": ids,
                "stop_reason": stats.stop_reason,
                "held": len(model.tokens),
            }
        )
    return {
        "name": name,
        "max_context": case.max_context,
        "max_tokens": case.max_tokens,
        "stop_ids": list(case.stop_ids),
        "repetition_penalty": case.penalty,
        "runs": runs,
    }
