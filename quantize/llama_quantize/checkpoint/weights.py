"""Read a quantised checkpoint: mapped, lazy, and refused unless every byte is as written.

It knows nothing of models. Tensors point into the mapped file, so reading one costs pages and no
copies; they must not be written to. Reading from several threads at once is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llama_quantize.checkpoint.files import HINT, RECORD_FILE, WEIGHTS_FILE, file_sha256
from llama_quantize.checkpoint.record import Record
from llama_quantize.checkpoint.store import check_ties
from llama_quantize.checkpoint.summary import QuantSummary, TensorStats
from llama_quantize.checkpoint.weights_file import (
    MappedFile,
    map_checked,
    mapped_tensor,
    stored_tensors,
)
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import Scheme
from llama_quantize.tensor import QuantizedTensor


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """The tensors of a quantised checkpoint by name.

    Args:
        folder: folder that holds both files.
        recipe: rules that made it.
        summary: sizes and errors, and how many tensors each rule took.
        tied: names that are stored nowhere and mean another tensor.
        metadata: strings kept with the weights.
        calibration: what decided the statistics of inputs; None: no method asked for any.
        weights_sha256: hash of the weights file.
        size_bytes: size of both files together.
    """

    folder: Path
    recipe: QuantRecipe
    summary: QuantSummary
    tied: Mapping[str, str]
    metadata: Mapping[str, str]
    calibration: Mapping[str, str] | None
    weights_sha256: str
    size_bytes: int
    _schemes: Mapping[str, Scheme]
    _file: MappedFile

    @classmethod
    def open(cls, folder: Path, check_hash: bool = True) -> QuantizedWeights:
        """Map a checkpoint that `quantize_to` wrote.

        Args:
            folder: folder of the checkpoint.
            check_hash: whether to read the weights file once and compare its hash, which takes
                half a second per GB.

        Raises:
            QuantizationError: not such a checkpoint, of a newer format, incomplete or changed.
        """
        record = Record.read(folder)
        path = folder / WEIGHTS_FILE
        record.require_size(folder)
        shapes = {stats.name: stats.shape for stats in record.summary.stats}
        resolved = record.recipe.resolve(shapes)
        check_ties(record.tied, shapes)
        if check_hash:
            _require_hash(path, record.weights_sha256)
        return cls(
            folder=folder,
            recipe=record.recipe,
            summary=record.summary,
            tied=record.tied,
            metadata=record.metadata,
            calibration=record.calibration,
            weights_sha256=record.weights_sha256,
            size_bytes=record.weights_bytes + (folder / RECORD_FILE).stat().st_size,
            _schemes=resolved.schemes,
            _file=map_checked(path, stored_tensors(resolved.schemes, shapes)),
        )

    @property
    def stats(self) -> tuple[TensorStats, ...]:
        """Size and error of each stored tensor, in model order."""
        return self.summary.stats

    def names(self) -> tuple[str, ...]:
        """Return the stored tensors in model order; tied names are in `tied`."""
        return tuple(self._schemes)

    def storage_name(self, name: str) -> str:
        """Return the name under which `name` is stored: itself, or what it is tied to.

        Raises:
            QuantizationError: there is no such tensor.
        """
        stored = self.tied.get(name, name)
        if stored not in self._schemes:
            message = f"{self.folder}: no tensor {name} among {len(self._schemes)}"
            raise QuantizationError(message, "the checkpoint is of another model")
        return stored

    def scheme(self, name: str) -> Scheme:
        """Return the storage form of a tensor.

        Raises:
            QuantizationError: there is no such tensor.
        """
        return self._schemes[self.storage_name(name)]

    def get(self, name: str) -> QuantizedTensor | Tensor:
        """Return a tensor, or codes and scales, mapped from the file.

        Raises:
            QuantizationError: there is no such tensor.
        """
        stored = self.storage_name(name)
        return mapped_tensor(self._file, stored, self._schemes[stored])

    def dequantized(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor as floats.

        Raises:
            QuantizationError: there is no such tensor.
        """
        stored = self.get(name)
        return stored.to(dtype) if isinstance(stored, Tensor) else stored.dequantize(dtype)


def _require_hash(path: Path, expected: str) -> None:
    if (found := file_sha256(path)) != expected:
        message = f"{path} was changed: expected sha256 {expected}, found {found}"
        raise QuantizationError(message, HINT)
