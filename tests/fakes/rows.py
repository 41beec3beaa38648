"""A session in memory whose logits depend on all that it holds, so that a lost token shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llama_export.errors import PromptError

VOCABULARY = 12
_ROWS = 4001
_SAID, _NOISE = np.random.default_rng(1).normal(size=(2, _ROWS, VOCABULARY))
# The first one, with which a text may end, comes seldom.
_SAID[:, 0] -= 1


class ContextSession:
    """Logits of a hash of the whole text, or of its last tokens alone, so that texts repeat.

    Args:
        depth: number of last tokens that count; None: all.
        noise: weight of what another seed would say, so that two sessions agree only now and then.
        max_context: number of positions.
        fault: "", "rewind does nothing", or "rows swapped".
    """

    vocab_size = VOCABULARY
    num_layers = 1
    all_logits = True

    def __init__(
        self,
        depth: int | None = None,
        *,
        noise: float = 0.0,
        max_context: int = 256,
        fault: str = "",
    ) -> None:
        self.depth, self.noise, self.max_context, self.fault = depth, noise, max_context, fault
        self.held: list[int] = []
        self.runs: list[int] = []
        self.closed = False

    @property
    def position(self) -> int:
        return len(self.held)

    def prefill(self, input_ids: Sequence[int]) -> np.ndarray:
        return self.run(input_ids)[-1]

    def run(self, input_ids: Sequence[int]) -> np.ndarray:
        if not 0 < len(input_ids) <= self.max_context - self.position:
            message = f"{len(input_ids)} tokens do not fit"
            raise PromptError(message)
        self.runs.append(len(input_ids))
        rows = []
        for token in input_ids:
            self.held.append(token)
            rows.append(self._row())
        if self.fault == "rows swapped":
            rows[1:] = rows[:0:-1]
        return np.array(rows, dtype=np.float32)

    def _row(self) -> np.ndarray:
        known = self.held if self.depth is None else self.held[-self.depth :]
        return (
            4 * _SAID[hash(tuple(known)) % _ROWS] + self.noise * _NOISE[hash((*self.held,)) % _ROWS]
        )

    def rewind(self, position: int) -> None:
        assert 0 <= position <= self.position
        if self.fault != "rewind does nothing":
            del self.held[position:]

    def cache(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(self.held, dtype=np.float32).reshape(1, -1, 1)
        return rows, -rows

    def restore(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.held = [int(value) for value in layers[0][0].ravel()]

    def fork(self) -> ContextSession:
        other = ContextSession(self.depth, noise=self.noise, max_context=self.max_context)
        other.held = list(self.held)
        return other

    def close(self) -> None:
        self.closed = True
