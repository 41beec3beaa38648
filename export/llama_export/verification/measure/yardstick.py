"""Read a text with two models, window by window, and keep what tells them apart in blocks.

The reference is a checkpoint in the eager model, computed once, with other weights read beside it;
or any two sources of logits, such as the sessions of two artifacts. Figures are kept for each block
of positions, because a figure without an error says little and whole blocks are nearly independent.
It knows windows, weights and figures; it knows no recipe, no file and no limits.

Shapes: B windows, S tokens of a window, N blocks of all windows, P positions, V vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import torch

from llama_export.errors import LlamaExportError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import Pass, ReadWeight, reference_head, run_passes
from llama_export.verification.estimate import Estimate, mean, ratio
from llama_export.verification.measure.in_blocks import Doubles, exponential
from llama_export.verification.measure.metrics import LogitComparison, Logits, TokenLoss

# What one pass through a layer takes, as in the calibration.
_WINDOWS_A_PASS = 4
# 256 positions of a 128256-word vocabulary are 131 MB in float32. With fewer, a quantised head is
# turned into floats more often than its product takes.
_ROWS_AT_ONCE = 256

Rows = Callable[[int, slice], Logits]
"""Returns the logits `[P, V]` of some positions of a window, by its number. It is asked for the
positions of a window in their order, and for the windows in theirs."""


@dataclass(frozen=True, eq=False)
class TextWindows:
    """A text cut into windows, each of which is read as a text of its own.

    Args:
        name: name of the text in the results.
        ids: token ids int64 `[B, S]`.
        targets: token that follows each of them, int64 `[B, S]`.
        blocks: number of blocks in each window, as nearly alike as can be.
    """

    name: str
    ids: torch.Tensor
    targets: torch.Tensor
    blocks: int = 1

    @property
    def positions(self) -> int:
        """Number of positions that are compared."""
        return self.ids.numel()

    @classmethod
    def cut(
        cls,
        name: str,
        token_ids: Sequence[int],
        positions: int,
        *,
        window: int,
        prefix_ids: tuple[int, ...] = (),
        blocks: int = 1,
    ) -> TextWindows:
        """Cut the beginning of a text into whole windows.

        Args:
            name: name of the text.
            token_ids: its tokens, from the first.
            positions: most positions to take.
            window: positions of a window; more than the prefix has.
            prefix_ids: tokens that come before every text, and so before every window's.
            blocks: number of blocks in each window.

        Raises:
            ValueError: there is not even one window.
        """
        own = window - len(prefix_ids)
        count = min(positions // window, (len(token_ids) - 1) // own)
        if count < 1:
            message = f"{name}: {min(positions, len(token_ids))} positions, at least {window}"
            raise ValueError(message)
        starts = range(0, count * own, own)
        ids = torch.tensor([[*prefix_ids, *token_ids[at : at + own]] for at in starts])
        follow = torch.tensor([token_ids[at + own] for at in starts])
        return cls(name, ids, torch.cat((ids[:, 1:], follow[:, None]), 1), blocks)

    def block_slices(self) -> tuple[slice, ...]:
        """Return the positions of each block of a window."""
        length = self.ids.shape[1]
        ends = [round(index * length / self.blocks) for index in range(self.blocks + 1)]
        return tuple(slice(start, stop) for start, stop in pairwise(ends))


@dataclass(frozen=True, eq=False)
class TextReading:
    """What a model makes of a text beside a reference, block by block.

    Args:
        positions: positions of each block, float64 `[N]`.
        kl: mean KL(reference || model) of each block in nats, float64 `[N]`.
        same: share of each block's positions with the reference's most likely token, float64 `[N]`.
        nats: mean loss of the model on each block in nats, float64 `[N]`.
        kl_of_positions: KL of every position, float64 `[P]`.
    """

    positions: Doubles
    kl: Doubles
    same: Doubles
    nats: Doubles
    kl_of_positions: Doubles

    @property
    def mean_kl(self) -> Estimate:
        """Return the mean KL over all positions, in nats."""
        return weighted_mean(self.kl, self.positions)

    @property
    def top1(self) -> Estimate:
        """Return the share of positions with the reference's most likely token."""
        return weighted_mean(self.same, self.positions)

    @property
    def perplexity(self) -> Estimate:
        """Return the model's perplexity."""
        return exponential(weighted_mean(self.nats, self.positions))

    def perplexity_over(self, nats: Doubles) -> Estimate:
        """Return the perplexity over that of another model, whose losses are `[N]`.

        Blocks that are hard are hard for both, so its error is that of the differences.
        """
        return exponential(weighted_mean(self.nats - nats, self.positions))


def block_positions(text: TextWindows) -> Doubles:
    """Return the positions of each block of a text, float64 `[N]`."""
    return np.array(_lengths(text) * len(text.ids), dtype=np.float64)


def weighted_mean(blocks: Doubles, positions: Doubles) -> Estimate:
    """Average a figure of at least two blocks `[N]` by their positions."""
    if np.ptp(positions) == 0:
        return mean(blocks)
    return ratio(blocks * positions, positions)


class Yardstick:
    """A checkpoint's own answers on some texts; other weights are read beside them.

    Args:
        config: shape of the model.
        original: function that reads a tensor of the checkpoint.
        texts: texts to read.
    """

    def __init__(
        self, config: LlamaConfig, original: ReadWeight, texts: Sequence[TextWindows]
    ) -> None:
        self.texts = tuple(texts)
        self._config = config
        self._original = original
        self._states = self._run(original)

    @cached_property
    def nats(self) -> tuple[Doubles, ...]:
        """Mean loss of the checkpoint on each block of each text in nats, float64 `[N]`."""
        rows = (partial(self._rows, self._original, states) for states in self._states)
        return tuple(map(losses, self.texts, rows))

    @property
    def perplexities(self) -> tuple[float, ...]:
        """Perplexity of the checkpoint on each text."""
        means = (
            float(np.average(nats, weights=block_positions(text)))
            for text, nats in zip(self.texts, self.nats, strict=True)
        )
        return tuple(map(math.exp, means))

    def read(self, weights: ReadWeight) -> tuple[TextReading, ...]:
        """Read every text with other weights, given by a function that returns them by name.

        Raises:
            LlamaExportError: a logit is no number.
        """
        found = zip(self.texts, self._states, self._run(weights), strict=True)
        return tuple(
            read_beside(
                text,
                partial(self._rows, self._original, own),
                partial(self._rows, weights, other),
            )
            for text, own, other in found
        )

    def _run(self, weights: ReadWeight) -> tuple[torch.Tensor, ...]:
        """Run everything below the head over all texts; float32 `[B, S, E]` each."""
        parts = [text.ids.split(_WINDOWS_A_PASS) for text in self.texts]
        passes = [Pass(ids) for each in parts for ids in each]
        states = iter(run_passes(self._config, weights, passes))
        return tuple(torch.cat([next(states).hidden for _ in each]) for each in parts)

    def _rows(
        self, weights: ReadWeight, states: torch.Tensor, window: int, positions: slice
    ) -> Logits:
        rows: Logits = reference_head(self._config, weights, states[window, positions]).numpy()
        return rows


def read_beside(text: TextWindows, reference: Rows, model: Rows) -> TextReading:
    """Read a text with a model and hold it against a reference.

    Raises:
        LlamaExportError: a logit is no number, or they have not as many.
    """
    sums = _Sums(text)
    for window, positions in _places(text):
        sums.add(
            reference(window, positions), model(window, positions), text.targets[window, positions]
        )
    return sums.result()


def read_both_ways(text: TextWindows, one: Rows, other: Rows) -> tuple[TextReading, TextReading]:
    """Read a text with two models, each held against the other.

    Returns:
        What the other makes of it with the one as the reference; and the one, with the other.

    Raises:
        LlamaExportError: a logit is no number, or they have not as many.
    """
    there, back = _Sums(text), _Sums(text)
    for window, positions in _places(text):
        targets = text.targets[window, positions]
        first, second = one(window, positions), other(window, positions)
        there.add(first, second, targets)
        back.add(second, first, targets)
    return there.result(), back.result()


def losses(text: TextWindows, model: Rows) -> Doubles:
    """Return a model's mean loss on each block of a text in nats, float64 `[N]`.

    Raises:
        LlamaExportError: a logit is no number.
    """
    sums = _Sums(text)
    for window, positions in _places(text):
        sums.score(model(window, positions), text.targets[window, positions])
    return sums.nats()


def _places(text: TextWindows) -> Iterator[tuple[int, slice]]:
    """Yield what is compared at once."""
    length = text.ids.shape[1]
    for window in range(len(text.ids)):
        for start in range(0, length, _ROWS_AT_ONCE):
            yield window, slice(start, min(start + _ROWS_AT_ONCE, length))


def _lengths(text: TextWindows) -> list[int]:
    return [block.stop - block.start for block in text.block_slices()]


class _Sums:
    """The comparisons of one reading, one for each block; they are filled in order."""

    def __init__(self, text: TextWindows) -> None:
        self._name = text.name
        self._positions = block_positions(text)
        self._comparisons = [LogitComparison() for _ in self._positions]
        self._losses = [TokenLoss() for _ in self._positions]
        self._block, self._filled = 0, 0

    def add(self, reference: Logits, model: Logits, targets: torch.Tensor) -> None:
        """Compare the next positions, and score the model's."""
        for block, rows in self._blocks_of(len(targets)):
            self._comparisons[block].add(reference[rows], model[rows])
            self._losses[block].add(model[rows], targets[rows].numpy())

    def score(self, model: Logits, targets: torch.Tensor) -> None:
        """Score the next positions."""
        for block, rows in self._blocks_of(len(targets)):
            self._losses[block].add(model[rows], targets[rows].numpy())

    def _blocks_of(self, count: int) -> Iterator[tuple[int, slice]]:
        """Yield the blocks that the next positions belong to, and which of them belong to each."""
        start = 0
        while start < count:
            size = int(self._positions[self._block])
            stop = min(count, start + size - self._filled)
            yield self._block, slice(start, stop)
            self._filled += stop - start
            if self._filled == size:
                self._block, self._filled = self._block + 1, 0
            start = stop

    def nats(self) -> Doubles:
        """Return the loss of each block."""
        results = [each.result() for each in self._losses]
        self._refuse([each.fault for each in results])
        return np.array([each.nats_per_token for each in results])

    def result(self) -> TextReading:
        """Return the figures of everything that was added."""
        metrics = [each.metrics() for each in self._comparisons]
        self._refuse([each.fault for each in metrics])
        return TextReading(
            positions=self._positions,
            kl=np.array([each.kl_mean for each in metrics]),
            same=np.array([each.top1 for each in metrics]),
            nats=self.nats(),
            kl_of_positions=np.concatenate([each.kl for each in metrics]),
        )

    def _refuse(self, faults: Sequence[str]) -> None:
        for block, fault in enumerate(faults, 1):
            if fault:
                message = f"{self._name}, block {block} of {len(faults)}: {fault}"
                raise LlamaExportError(message, "verify names the first operator that is wrong")
