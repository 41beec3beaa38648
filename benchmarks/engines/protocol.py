"""The protocol between a benchmark and an engine's process: one JSON line for each message.

It uses the standard library only, since every engine lives in an environment of its own. A question
is `{"do": "prefill", "tokens": 128}` or `{"do": "decode", "context": 128, "tokens": 16}`; the
answer holds `elapsed_s` and the memory. The first line describes what was loaded; `before_load` is
the memory that the libraries hold by then. Anonymous memory is resident memory that belongs to no
file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

# Ordinary words of Llama 3's vocabulary; the same for every engine.
FIRST_TOKEN = 1000
VARIETY = 3000


class Engine(Protocol):
    """A loaded model with one conversation."""

    def version(self) -> str:
        """Return the library's name and version."""

    def clear(self) -> None:
        """Forget the conversation."""

    def prefill(self, tokens: list[int]) -> None:
        """Append tokens and compute the logits after the last of them."""

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""

    def step(self) -> None:
        """Append the likeliest next token, and compute the logits after it."""


def prompt(length: int) -> list[int]:
    """Return a prompt without repetitions that an engine could exploit."""
    return [FIRST_TOKEN + 7 * index % VARIETY for index in range(length)]


def serve(load: Callable[[str, int], Engine]) -> None:
    """Load the model named on the command line, and answer questions until stdin ends."""
    # A library's own messages must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    before = _memory()
    begun = time.perf_counter()
    engine = load(sys.argv[1], int(sys.argv[2]))
    load_s = time.perf_counter() - begun
    loaded = {"engine": engine.version(), "load_s": load_s, "before_load": before, **_memory()}
    print(json.dumps(loaded), file=answers)
    held = -1
    for line in sys.stdin:
        question: dict[str, Any] = json.loads(line)
        if question["do"] == "prefill":
            engine.clear()
            held = -1
            tokens = prompt(question["tokens"])
            begun = time.perf_counter()
            engine.prefill(tokens)
        else:
            if held != question["context"]:
                engine.clear()
                engine.prefill(prompt(question["context"]))
                held = question["context"]
            else:
                engine.rewind(held)
            engine.step()  # the cache is warm, and threads are awake
            begun = time.perf_counter()
            for _ in range(question["tokens"]):
                engine.step()
        elapsed_s = time.perf_counter() - begun
        print(json.dumps({"elapsed_s": elapsed_s, **_memory()}), file=answers)


def _memory() -> dict[str, int]:
    resident, shared = (int(pages) for pages in Path("/proc/self/statm").read_text().split()[1:3])
    return {
        "resident_bytes": resident * resource.getpagesize(),
        "anonymous_bytes": (resident - shared) * resource.getpagesize(),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
