"""An artifact in memory: the eager model behind the `Session` protocol, with faults on request."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from llama_export.errors import PromptError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.model import Llama
from llama_export.llama.rope import inverse_frequencies
from llama_quantize.checkpoint.weights import QuantizedWeights


def quantised_llama(config: LlamaConfig, weights: QuantizedWeights) -> Llama:
    model = Llama(config).eval().requires_grad_(False)
    names = [name for name in model.state_dict() if name not in weights.tied]
    state = {name: weights.dequantized(name) for name in names}
    model.load_state_dict(state, strict=not weights.tied)
    return model


class FakeSession:
    """Runs the eager model with quantised weights.

    Args:
        model: with the weights of the artifact.
        noise: relative size of the error added to every logit, as rounded activations cause it.
        fault: "", or one of `FAULTS`.
    """

    def __init__(
        self, model: Llama, *, noise: float = 0.0, fault: str = "", max_context: int = 64
    ) -> None:
        if fault not in ("", *FAULTS):
            message = f"no such fault: {fault}"
            raise ValueError(message)
        self._model = model
        self._noise = noise
        self._fault = fault
        self.max_context = max_context
        self.position = 0
        self.vocab_size = model.config.vocab_size
        # In a list, so that a faulty fork can share it.
        self._kept = [model.empty_cache(max_context + 1)]
        self._generator = np.random.default_rng(0)
        if fault == "rope scaling off":
            plain = dataclasses.replace(model.config, rope_scaling=None)
            model.model.inv_freq = inverse_frequencies(plain)

    @torch.inference_mode()
    def prefill(self, input_ids: Sequence[int]) -> np.ndarray:
        if not 0 < len(input_ids) <= self.max_context - self.position:
            if self._fault == "no end of the context":
                return np.zeros(self.vocab_size, dtype=np.float32)
            self.position += int(self._fault == "a refused token counts")
            if self._fault == "a refusal spoils the cache":
                self._cache[0][1][:, :, 0] = 0
            message = f"{len(input_ids)} tokens do not fit"
            raise PromptError(message)
        first_call = self.position == 0
        start = self.position + self._offset(len(input_ids))
        logits, self._kept[0] = self._model(
            torch.tensor([list(input_ids)]), torch.tensor(start), self._cache
        )
        self.position += len(input_ids)
        self._spoil_cache(first_call)
        row = logits[0, -1].numpy().copy()
        row += self._noise * row.std() * self._generator.normal(size=row.shape)
        if self._fault == "NaN":
            row[3] = np.nan
        return row.astype(np.float32)

    def rewind(self, position: int) -> None:
        assert 0 <= position <= self.position
        if self._fault != "rewind does nothing" or position == 0:
            self.position = position

    def cache(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        key, value = (rows[0, :, : self.position].numpy() for rows in self._cache[layer])
        return (value, key) if self._fault == "K and V swapped" else (key, value)

    @property
    def _cache(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return self._kept[0]

    @property
    def num_layers(self) -> int:
        return len(self._cache)

    @torch.inference_mode()
    def restore(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        assert len(layers) == self.num_layers
        for (key, value), pair in zip(self._cache, layers, strict=True):
            for rows, kept in zip((key, value), pair, strict=True):
                rows[0, :, : kept.shape[1]] = torch.from_numpy(kept)
        self.position = layers[0][0].shape[1]

    def fork(self) -> FakeSession:
        other = copy.copy(self)
        if self._fault != "forks share a cache":
            other._kept = [[(key.clone(), value.clone()) for key, value in self._cache]]
        return other

    def close(self) -> None:
        """Hold nothing that had to be let go of."""

    def _offset(self, length: int) -> int:
        if self._fault == "last rotation row wrong":
            return -int(self.position + length == self.max_context)
        if self._fault == "position off by one":
            return 1
        return int(self._fault == "decode position off by one" and length == 1)

    def _spoil_cache(self, first_call: bool) -> None:
        if self._fault == "one stale cache row" and first_call and self.position > 4:
            for key, _ in self._cache:
                key[:, :, 3] = key[:, :, 2]
        if self._fault == "chunk ends lost" and self.position % 2 and not first_call:
            for pair in self._cache:
                for rows in pair:
                    rows[:, :, self.position - 1] = 0


FAULTS = (
    "rope scaling off",
    "position off by one",
    "decode position off by one",
    "K and V swapped",
    "one stale cache row",
    "chunk ends lost",
    "rewind does nothing",
    "NaN",
    "no end of the context",
    "a refused token counts",
    "a refusal spoils the cache",
    "forks share a cache",
    "last rotation row wrong",
)
