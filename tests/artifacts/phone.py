"""A phone in memory: it makes a bundle's golden calls as an app does, rightly or with a fault.

It is written from the description of golden.json, and shares no code with what records it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llama_export.targets.session import Session

Layers = list[tuple[np.ndarray, np.ndarray]]


class Phone:
    """A model that is stepped: tokens at a position, logits after the last of them."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def step(self, ids: list[int], position: int) -> np.ndarray:
        self.session.rewind(position)
        return self.session.prefill(ids)

    def layers(self) -> Layers:
        pairs = (self.session.cache(layer) for layer in range(self.session.num_layers))
        return [(keys.copy(), values.copy()) for keys, values in pairs]


class OffByOne(Phone):
    """Single steps overwrite the last row."""

    def step(self, ids, position):
        return super().step(ids, max(position - 1, 0) if len(ids) == 1 else position)


class StaleRow(Phone):
    """After a rewind the first row stays what it was."""

    def step(self, ids, position):
        before = self.layers() if position < self.session.position else None
        logits = super().step(ids, position)
        if before is not None and position:
            now = self.layers()
            for (keys, values), (old_keys, old_values) in zip(now, before, strict=True):
                keys[:, position], values[:, position] = (
                    old_keys[:, position],
                    old_values[:, position],
                )
            self.session.restore(now)
        return logits


class NeverRewinds(Phone):
    """What was forgotten stays in the cache."""

    def step(self, ids, position):
        return self.session.prefill(ids)


class Changed(Phone):
    """Each new row of the cache is changed before the next call."""

    def change(self, keys: np.ndarray, values: np.ndarray) -> None:
        raise NotImplementedError

    def step(self, ids, position):
        logits = super().step(ids, position)
        layers = self.layers()
        for keys, values in layers:
            new = slice(position, None)
            self.change(keys[:, new], values[:, new])
        self.session.restore(layers)
        return logits


class SwappedHead(Changed):
    """Two heads' keys are exchanged, in every layer."""

    def change(self, keys, values):
        keys[[0, 1]] = keys[[1, 0]]


class WrongScale(Changed):
    """Keys are a tenth too large."""

    def change(self, keys, values):
        keys *= 1.1


class HotLogits(Phone):
    """The head's scale is a twentieth too large."""

    def step(self, ids, position):
        return super().step(ids, position) * 1.05


FAULTS: dict[str, type[Phone]] = {
    "positions off by one": OffByOne,
    "a stale row": StaleRow,
    "no rewind": NeverRewinds,
    "a swapped head": SwappedHead,
    "a wrong scale of keys": WrongScale,
    "a wrong scale of the head": HotLogits,
}


def measured(step: Callable[[list[int], int], np.ndarray], golden: dict[str, Any]) -> list[Any]:
    """Make the golden calls, and return a report's `positions`."""
    prompt, back = golden["prompt_ids"], golden["rewind"]
    texts = {"prompt": prompt, "rewind": prompt[: back["to"]] + back["ids"]}
    found = []
    for call in golden["positions"]:
        first, last = call["from"], call["at"]
        logits = np.array(step(texts[call["text"]][first : last + 1], first), np.float64)
        logprobs = logits - logits.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        places = [place for place, _ in call["top"]]
        others = np.delete(np.exp(logprobs), places).sum()
        found.append(
            {
                "at": last,
                "logprobs": [round(float(logprobs[place]), 5) for place in places],
                "rest_logprob": round(float(np.log(others)), 5) if others > 0 else None,
                "best": int(logits.argmax()),
            }
        )
    return found


def report_of(folder: Path, phone: Phone) -> dict[str, Any]:
    """Return what an app writes of a bundle."""
    golden = json.loads((folder / "golden.json").read_text())
    return {
        "format_version": 1,
        "device": {"model": "Test phone", "system": "Android 15"},
        "runtime": "in memory",
        "manifest_sha256": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
        "positions": measured(phone.step, golden),
    }
