"""A LoRA adapter over a model: each weight is merged while it is read, some rows at a time.

W + s B A in float32, one adapter after the other; what an adapter holds whole takes the place of
the model's own. A tied head that an adapter changes without its table, or the other way round, is
untied, because the adapter was trained so. It knows no format of the model below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.laid_over import LaidOver
from llama_export.checkpoints.lora_tensors import Adapter, Factors
from llama_export.errors import CheckpointError
from llama_export.llama.names import HEAD, TABLE, expected_shapes
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from torch import Tensor

    from llama_export.llama.config import LlamaConfig
    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor


def lay_over(
    config: LlamaConfig, adapters: Sequence[Adapter], base: Path
) -> tuple[LlamaConfig, tuple[Adapter, ...]]:
    """Check that adapters fit a model, one after the other.

    Args:
        config: shape of the model.
        adapters: opened adapters.
        base: folder or file of the model.

    Returns:
        The shape of all together, which may be untied or of another vocabulary; and the adapters
        without what changes nothing.

    Raises:
        CheckpointError: an adapter was made for another model, or changes the number of tokens in
            the table or the head alone.
    """
    fitted = []
    for adapter in adapters:
        shapes = {**expected_shapes(config), HEAD: (config.vocab_size, config.hidden_size)}
        fitted.append(adapter.fitted(shapes, base))
        if not adapter.updates.keys() & {TABLE, HEAD}:
            continue
        rows = {name: adapter.rows(name) or config.vocab_size for name in (TABLE, HEAD)}
        if rows[TABLE] != rows[HEAD]:
            message = (
                f"{adapter.folder}: with the adapter, {TABLE} has {rows[TABLE]} rows and {HEAD} "
                f"has {rows[HEAD]}"
            )
            hint = "save both in the training: modules_to_save=['embed_tokens', 'lm_head'] in peft"
            raise CheckpointError(message, hint)
        config = replace(config, tie_word_embeddings=False, vocab_size=rows[TABLE])
    return config, tuple(fitted)


@dataclass(frozen=True)
class LoraCheckpoint(LaidOver):
    """A model of floats with adapters over it.

    Args:
        adapters: adapters in the order of their merging.
    """

    adapters: tuple[Adapter, ...]

    @classmethod
    def open(
        cls, base: Checkpoint, adapters: Sequence[Adapter], config: LlamaConfig | None = None
    ) -> LoraCheckpoint:
        """Lay adapters over an opened model, and check that they fit it.

        Args:
            base: model of floats.
            adapters: opened adapters.
            config: shape of both together, as `lay_over` returned it; None: it is found now.

        Raises:
            CheckpointError: an adapter was made for another model, or the base is quantised.
        """
        if base.recipe is not None:
            message = (
                f"{base.folder} holds quantised weights, and an adapter is merged into floats alone"
            )
            hint = "name the 16-bit model that these weights were made from as the base"
            raise CheckpointError(message, hint)
        together, fitted = lay_over(base.config, adapters, base.folder)
        config = config or together
        return cls(config, expected_shapes(config), base, fitted)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the base's reader noted, and that a tied model is not tied any more."""
        if not self.base.config.tie_word_embeddings or self.config.tie_word_embeddings:
            return self.base.notes
        note = "the adapter changes the token table or the head, so they are two tensors now"
        return (*self.base.notes, note)

    def tensor(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Return a tensor of the base, or one whose rows are merged as they are read.

        Raises:
            CheckpointError: there is no tensor of that name, or the files are damaged.
        """
        self.require(name, self.folder)
        changes = [each.updates[name] for each in self.adapters if name in each.updates]
        last = max((at for at, each in enumerate(changes) if each.replaces), default=None)
        start = self._below(name) if last is None else changes[last].whole()
        factors = [found for each in changes[last or 0 :] if (found := each.factors()) is not None]
        return _merged(name, start, factors) if factors else start

    def release(self) -> None:
        """Return mapped pages to the system; a later read maps the files again."""
        super().release()
        for adapter in self.adapters:
            adapter.release()

    def _below(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Return the base's tensor; the head of a tied base is its table."""
        return self.base.tensor(self.base.tied.get(name, name))


def _merged(
    name: str, start: Tensor | LazyTensor | QuantizedTensor, factors: Sequence[Factors]
) -> LazyTensor:
    import torch

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor

    if isinstance(start, QuantizedTensor):
        message = f"{shown_name(name)} is quantised, and an adapter is merged into floats alone"
        raise CheckpointError(message, "name the 16-bit model as the base")

    def read(rows: slice | Tensor) -> Tensor:
        values = start[rows].float()
        for each in factors:
            values = each.merge(values, rows)
        return values

    row_bytes = start.row_bytes if isinstance(start, LazyTensor) else start[:1].nbytes
    return LazyTensor(tuple(start.shape), torch.float32, row_bytes, read)
