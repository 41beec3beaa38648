"""What all checkpoints have in common that are another one, changed while it is read.

A kind of change is a subclass, which says what a tensor becomes. It knows no format of the model
below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.model_tensors import ModelTensors

if TYPE_CHECKING:
    from llama_quantize.recipe import QuantRecipe


@dataclass(frozen=True)
class LaidOver(ModelTensors):
    """A checkpoint below, and what is seen of it from above: floats, where nothing else is said.

    Args:
        base: model below.
    """

    base: Checkpoint

    @property
    def folder(self) -> Path:
        """Where the model is, with its small files."""
        return self.base.folder

    @property
    def size_bytes(self) -> int:
        """Size of the tensors below, with as many more or fewer as there are, about."""
        size, whole = self.base.size_bytes, self.base.config.num_parameters
        return size + (self.config.num_parameters - whole) * size // max(1, whole)

    @property
    def recipe(self) -> QuantRecipe | None:
        """Nothing: the tensors are floats."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of the model below noted."""
        return self.base.notes

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """Those of the notes that are true as long as codes are kept."""
        return self.base.kept_notes

    def release(self) -> None:
        """Return mapped pages to the system; a later read maps the files again."""
        self.base.release()
