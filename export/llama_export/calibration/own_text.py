"""Windows of text that the model writes itself: drawn as it was trained, at temperature 1.

All windows are written side by side, a token of each a step. A window's random numbers come from
the seed and its own number alone. Drawn are tokens of text and those that end one, never a row
that pads the table or a control token that only a template writes. The module knows neither files
nor what is done with the windows.

Shapes: B windows, S tokens, V num_logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from llama_export.calibration.scripts import DialogForm, DialogScript, TextScript
from llama_export.calibration.stepwise import StepwiseModel, cache_bytes
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.workers import worker_pool

# 64 windows of 512 tokens of the 1B shape; of a larger model as much as a third of its weights.
_LEAST_CACHE_BYTES = 1_100_000_000
_WEIGHTS_TO_CACHE = 3
# Two threads with half of the windows each need not wait for each other within a step.
_AT_ONCE = 2
_NEVER, _NOTHING = float("-inf"), -1


@dataclass(frozen=True)
class Order:
    """A window that is wanted.

    Args:
        number: number that its random numbers depend on.
        is_dialog: whether it holds dialogs; otherwise it holds texts.
        given: ids that it begins with, and goes on from; empty: the beginning of a text.
        attempt: how often it was written before, on which its random numbers depend too.
    """

    number: int
    is_dialog: bool = False
    given: tuple[int, ...] = ()
    attempt: int = 0


@dataclass(frozen=True, eq=False)
class OwnWriter:
    """A model that writes windows.

    Args:
        config: shape of the model, with every token that ends a text.
        weights: its tensors by Hugging Face's names, mapped and all of one type.
        tokenizer: its tokenizer.
        dialogs: what is given in its dialogs; None: it writes none.
        start: ids that its texts begin with, at least one.
        seed: seed of everything that is drawn.
    """

    config: LlamaConfig
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    dialogs: DialogForm | None
    start: tuple[int, ...]
    seed: int

    def write(
        self, orders: Sequence[Order], window: int, progress: Callable[[int], None]
    ) -> Tensor:
        """Write windows.

        Args:
            orders: windows that are wanted.
            window: number of tokens of each.
            progress: called with the number of tokens written since its last call.

        Returns:
            int64 `[B, S]`.

        Raises:
            CheckpointError: the model's logits are not finite.
        """
        dtype = next(iter(self.weights.values())).dtype
        held = sum(each.nbytes for each in self.weights.values()) // _WEIGHTS_TO_CACHE
        most = max(1, max(_LEAST_CACHE_BYTES, held) // cache_bytes(self.config, dtype, window))
        penalties = drawable(self.config, self.tokenizer)
        parts = _even(orders, -(-len(orders) // most))
        # One after the other: the caches of one are gone before the next ones are made.
        written = [self._part(part, window, penalties, progress) for part in parts]
        return torch.cat([torch.empty(0, window, dtype=torch.int64), *written])

    def _part(
        self,
        orders: Sequence[Order],
        window: int,
        penalties: Tensor,
        progress: Callable[[int], None],
    ) -> Tensor:
        """Write windows that fit into memory side by side."""
        batches = [self._batch(each, window, penalties) for each in _even(orders, _AT_ONCE)]
        with worker_pool(_AT_ONCE) as pool:
            for at in range(window):
                list(pool.map(lambda batch, at=at: batch.write(at), batches))
                progress(len(orders))
        return torch.cat([batch.written for batch in batches])

    def _batch(self, orders: Sequence[Order], window: int, penalties: Tensor) -> _Batch:
        randoms = [self._random(order) for order in orders]
        chances = np.stack([each.integers(2**32, size=window) for each in randoms]) / 2.0**32
        scripts = [
            self._script(order, random) for order, random in zip(orders, randoms, strict=True)
        ]
        return _Batch(
            StepwiseModel(self.config, self.weights, len(orders), window),
            scripts,
            torch.from_numpy(chances),
            penalties,
            torch.tensor(sorted(self.config.eos_token_id)),
        )

    def _random(self, order: Order) -> np.random.Generator:
        seeds = np.random.SeedSequence([self.seed, order.number, order.attempt])
        return np.random.Generator(np.random.Philox(seeds))

    def _script(self, order: Order, random: np.random.Generator) -> TextScript | DialogScript:
        ends = frozenset(self.config.eos_token_id)
        if order.is_dialog and self.dialogs is not None:
            return DialogScript(self.dialogs, ends, random)
        return TextScript(order.given or self.start, self.start, ends)


class _Batch:
    """Windows that are written side by side, by one thread.

    Args:
        model: model with as many texts.
        scripts: what is given in each of them.
        chances: random numbers float64 `[B, S]`, from 0 to 1, without 1.
        penalties: what is added to logits, float32 `[V]`.
        ends: ids that end a text, int64.
    """

    def __init__(
        self,
        model: StepwiseModel,
        scripts: Sequence[TextScript | DialogScript],
        chances: Tensor,
        penalties: Tensor,
        ends: Tensor,
    ) -> None:
        self._model, self._scripts, self._chances = model, scripts, chances
        self._penalties, self._ends = penalties, ends
        self.written = torch.empty(chances.shape, dtype=torch.int64)

    @torch.inference_mode()
    def write(self, at: int) -> None:
        """Write the token of each window at a position; those before are written."""
        drawn = [_NOTHING] * len(self._scripts)
        if at > 0:
            logits = self._model.step(self.written[:, at - 1]).add_(self._penalties)
            fresh = torch.tensor([not script.may_end for script in self._scripts])
            logits[fresh.nonzero(), self._ends] = _NEVER
            drawn = draw(logits, self._chances[:, at]).tolist()
        self.written[:, at] = torch.tensor(
            [script.next(each) for script, each in zip(self._scripts, drawn, strict=True)]
        )


def _even(orders: Sequence[Order], parts: int) -> list[Sequence[Order]]:
    """Cut into parts of about one size, none of which is empty."""
    edges = [len(orders) * at // parts for at in range(parts + 1)] if parts else []
    return [orders[a:b] for a, b in pairwise(edges) if a < b]


def text_start(config: LlamaConfig, tokenizer: Tokenizer, *, is_chat: bool) -> tuple[int, ...]:
    """Return the ids that a text begins with, where the model writes it.

    Where the tokenizer puts nothing before a text, a chat model's first token begins its template,
    and what follows it is no text: there a line begins it.

    Args:
        config: shape of the model, with every token that ends a text.
        tokenizer: its tokenizer.
        is_chat: whether the model has a chat template.
    """
    if tokenizer.prefix_ids:
        return tokenizer.prefix_ids
    line = tuple(tokenizer.encode("\n")) if is_chat else ()
    first = tokenizer.bos_token_id if config.bos_token_id is None else config.bos_token_id
    return line or (config.eos_token_id[0] if first is None else first,)


def drawable(config: LlamaConfig, tokenizer: Tokenizer) -> Tensor:
    """Return what is added to logits so that a token is never drawn that ends or writes nothing.

    Args:
        config: shape of the model, with every token that ends a text.
        tokenizer: its tokenizer.

    Returns:
        float32 `[V]`: 0, or minus infinity.
    """
    penalties = torch.full((config.num_logits,), _NEVER)
    letter = tokenizer.encode("a", continues=True)
    nothing = tokenizer.decode([*letter, *letter])
    control = frozenset(tokenizer.special_tokens.values())
    for token_id in range(min(config.num_logits, tokenizer.vocab_size)):
        # An id in a gap of the vocabulary leaves no trace between two letters.
        if token_id not in control and tokenizer.decode([*letter, token_id, *letter]) != nothing:
            penalties[token_id] = 0.0
    penalties[list(config.eos_token_id)] = 0.0
    return penalties


def draw(logits: Tensor, chances: Tensor) -> Tensor:
    """Draw a token of each row at temperature 1.

    Args:
        logits: float32 `[B, V]`, which are overwritten.
        chances: random numbers float64 `[B]`, from 0 to 1, without 1.

    Returns:
        int64 `[B]`.

    Raises:
        CheckpointError: a row has a NaN, or no finite logit.
    """
    shares = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    sums = shares.cumsum(1, dtype=torch.float64)
    total = sums[:, -1]
    if not bool(total.isfinite().all()):
        message = "the model's logits are not finite, so no text can be drawn from them"
        raise CheckpointError(message, "check that the checkpoint is what its config.json says")
    return torch.searchsorted(sums, (chances * total).unsqueeze(1), right=True).squeeze(1)
