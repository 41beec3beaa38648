"""What follows from the shape of a model for every checkpoint whose tensors are those of the model.

It knows no file and no form of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_export.errors import CheckpointError
from llama_export.llama.names import tied_names
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from pathlib import Path

    from llama_export.llama.config import LlamaConfig


@dataclass(frozen=True)
class ModelTensors:
    """The tensors of a model, in another form than the one that is lowered.

    Args:
        config: shape of the model.
        shapes: shape of each tensor by Hugging Face's name, in model order.
    """

    config: LlamaConfig
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in model order; no `lm_head.weight` when that is tied."""
        return tuple(self.shapes)

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that mean another tensor: the head of a tied model."""
        return tied_names(self.config)

    @property
    def weights_folder(self) -> None:
        """Nothing: the tensors are in another form."""

    def require(self, name: str, folder: Path) -> None:
        """Refuse a name that no tensor has.

        Args:
            name: name that is looked for.
            folder: where the checkpoint is, for the message.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        if name not in self.shapes:
            message = f"the checkpoint {folder} has no tensor called {shown_name(name)}"
            raise CheckpointError(message)
