"""Measure how far quantised weights are from their checkpoint on texts, window by window.

Everything is computed by the eager model in float32, so the figures are the quantisation's alone.
In memory are the hidden states of all positions, one layer, and two windows' logits. It knows
windows, weights and figures; it knows no command line and no layout.

Shapes: B windows, S tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import Pass, ReadWeight, reference_head, run_passes
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import Source, open_source
from llama_export.verification.measure.metrics import LogitComparison, TokenLoss

WINDOW = 512
# What one pass through a layer takes, as in the calibration.
_WINDOWS_A_PASS = 4


@dataclass(frozen=True, eq=False)
class TextWindows:
    """A text cut into windows, each of which is read as a text of its own.

    Args:
        name: name of the text in the results.
        ids: token ids int64 `[B, S]`.
        targets: token that follows each of them, int64 `[B, S]`.
    """

    name: str
    ids: torch.Tensor
    targets: torch.Tensor

    @property
    def positions(self) -> int:
        """Number of positions that are compared."""
        return self.ids.numel()

    @classmethod
    def cut(cls, name: str, token_ids: Sequence[int], positions: int) -> TextWindows:
        """Cut the beginning of a text into whole windows.

        Args:
            name: name of the text.
            token_ids: its tokens, from the first.
            positions: most positions to take.

        Raises:
            ValueError: there are fewer than two windows, so that nothing tells how they spread.
        """
        count = min(positions, len(token_ids) - 1) // WINDOW
        if count < 2:
            message = f"{name}: {min(positions, len(token_ids))} positions, at least {2 * WINDOW}"
            raise ValueError(message)
        taken = torch.tensor(token_ids[: count * WINDOW + 1])
        return cls(name, taken[:-1].view(count, WINDOW), taken[1:].view(count, WINDOW))


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model with some weights makes of a text.

    Args:
        kl: mean KL(checkpoint || weights) of each window in nats, float64 `[B]`.
        top1: share of positions with the checkpoint's most likely token.
        perplexity: perplexity of the weights.
    """

    kl: npt.NDArray[np.float64]
    top1: float
    perplexity: float


def open_reference(model: str) -> Source:
    """Open a model, named as for the export, whose codes are floats: they are the reference then.

    Raises:
        LlamaExportError: there is no such model, or it cannot be read.
    """
    found = resolve_model(model)
    is_gguf = found.path.suffix.lower() == ".gguf"
    return open_source(found, options=ReadOptions(requantize=True, accept_loss=is_gguf))


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
        self.perplexities = tuple(
            self._perplexity(text, states)
            for text, states in zip(self.texts, self._states, strict=True)
        )

    def read(self, weights: ReadWeight) -> tuple[Reading, ...]:
        """Read every text with other weights, given by a function that returns them by name."""
        found = zip(self.texts, self._states, self._run(weights), strict=True)
        return tuple(self._compare(text, own, other, weights) for text, own, other in found)

    def _run(self, weights: ReadWeight) -> tuple[torch.Tensor, ...]:
        """Run everything below the head over all texts; float32 `[B, S, E]` each."""
        parts = [text.ids.split(_WINDOWS_A_PASS) for text in self.texts]
        passes = [Pass(ids) for each in parts for ids in each]
        states = iter(run_passes(self._config, weights, passes))
        return tuple(torch.cat([next(states).hidden for _ in each]) for each in parts)

    def _compare(
        self, text: TextWindows, own: torch.Tensor, other: torch.Tensor, weights: ReadWeight
    ) -> Reading:
        comparison, loss = LogitComparison(), TokenLoss()
        for window in range(len(text.ids)):
            wanted = reference_head(self._config, self._original, own[window]).numpy()
            found = reference_head(self._config, weights, other[window]).numpy()
            comparison.add(wanted, found)
            loss.add(found, text.targets[window].numpy())
        metrics, scored = comparison.metrics(), loss.result()
        if fault := metrics.fault or scored.fault:
            message = f"{text.name}: {fault}"
            raise ValueError(message)
        return Reading(metrics.kl.reshape(-1, WINDOW).mean(1), metrics.top1, scored.perplexity)

    def _perplexity(self, text: TextWindows, states: torch.Tensor) -> float:
        loss = TokenLoss()
        for window, targets in zip(states, text.targets, strict=True):
            logits = reference_head(self._config, self._original, window)
            loss.add(logits.numpy(), targets.numpy())
        return loss.result().perplexity
