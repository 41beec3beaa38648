"""What all checkpoints have in common that are another one, changed while it is read.

A kind of change is a subclass, which says what a tensor becomes. It knows no format of the model
below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.errors import CheckpointError
from llama_export.llama.names import tied_names
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_quantize.recipe import QuantRecipe


@dataclass(frozen=True)
class LaidOver:
    """A checkpoint below, and what is seen of it from above: floats, where nothing else is said.

    Args:
        base: model below.
        config: shape of the model as it is seen.
        shapes: shape of each tensor, in model order.
    """

    base: Checkpoint
    config: LlamaConfig
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)

    @property
    def folder(self) -> Path:
        """Where the model is, with its small files."""
        return self.base.folder

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in model order."""
        return tuple(self.shapes)

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that mean another tensor: the head of a model that is still tied."""
        return tied_names(self.config)

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
    def weights_folder(self) -> None:
        """Nothing: the tensors are in another form."""

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

    def require(self, name: str) -> None:
        """Refuse a name that no tensor has.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        if name not in self.shapes:
            message = f"the checkpoint {self.folder} has no tensor called {shown_name(name)}"
            raise CheckpointError(message)
