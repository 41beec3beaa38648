"""The tensors of a checkpoint in Meta's layout that holds floats.

They are mapped; what shards hold parts of is put together row by row, and the rows of queries and
keys come in Hugging Face's order. It knows nothing of params.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.meta_checks import FLOATS, check_tensors, type_name
from llama_export.checkpoints.meta_names import FIRST_QUERY, META_HEAD, MetaTensor, meta_tensors
from llama_export.checkpoints.meta_shards import Shards, in_their_order, join
from llama_export.checkpoints.model_tensors import ModelTensors
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.lazy import LazyTensor


@dataclass(frozen=True)
class MetaCheckpoint(ModelTensors):
    """An open checkpoint of floats whose every tensor was found to be what params.json asks for.

    Args:
        folder: folder or file that was named.
        size_bytes: size of these tensors in the files.
        notes: what was inferred.
    """

    folder: Path
    size_bytes: int
    notes: tuple[str, ...]
    _tensors: Mapping[str, MetaTensor] = field(repr=False)
    _shards: Shards = field(repr=False)

    @classmethod
    def of(
        cls, folder: Path, config: LlamaConfig, shards: Shards, notes: tuple[str, ...]
    ) -> MetaCheckpoint:
        """Check all of a checkpoint but the values.

        Raises:
            CheckpointError: a tensor is missing, unexpected, or of the wrong shape or type.
        """
        tensors = meta_tensors(config)
        _require_floats(shards)
        check_tensors(
            shards,
            list(tensors.values()),
            lambda name: FLOATS,
            lambda name: name == META_HEAD and config.tie_word_embeddings,
            config.num_hidden_layers,
        )
        return cls(
            folder=folder,
            config=config,
            shapes={name: tensor.shape for name, tensor in tensors.items()},
            size_bytes=shards.size_bytes([tensor.name for tensor in tensors.values()]),
            notes=notes,
            _tensors=tensors,
            _shards=shards,
        )

    @property
    def recipe(self) -> None:
        """Nothing: the tensors are floats."""

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """Nothing: there are no codes."""
        return ()

    def tensor(self, name: str) -> Tensor | LazyTensor:
        """Map a tensor, or gather its rows as they are read.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        self.require(name, self.folder)
        tensor = self._tensors[name]
        return in_their_order(join(self._shards, tensor), tensor)

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._shards.release()


def _require_floats(shards: Shards) -> None:
    """Refuse codes of which params.json does not say what they are."""
    parts = shards.parts(FIRST_QUERY)
    if parts and type_name(parts[0].dtype) == "int8":
        message = f"{shards.folder} holds int8 codes, and params.json has no quantization_args"
        hint = "take params.json from the same download: it says what the codes stand for"
        raise CheckpointError(message, hint)
