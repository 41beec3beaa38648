"""Read a quantised checkpoint: mapped, lazy, and refused unless every byte is as written.

It knows nothing of models. Tensors point into the mapped file, so reading one costs pages and no
copies; they must not be written to. Reading from several threads at once is safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llama_quantize.checkpoint.store import (
    FORMAT,
    FORMAT_VERSION,
    RECORD_FILE,
    WEIGHTS_FILE,
    check_ties,
    file_sha256,
    quantize_to,
    stored_tensors,
)
from llama_quantize.checkpoint.summary import QuantSummary, TensorStats, db_from_json
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import GroupedInt, Scheme
from llama_quantize.tensor import Form, QuantizedTensor

__all__ = ["QuantizedWeights", "quantize_to"]

_HINT = "quantise the model again into a new folder"


class _MappedFile(Protocol):
    def keys(self) -> list[str]: ...
    def get_tensor(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class _Record:
    """quantization.json, checked for form."""

    recipe: QuantRecipe
    summary: QuantSummary
    tied: Mapping[str, str]
    metadata: Mapping[str, str]
    sha256: str
    size_bytes: int


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """The tensors of a quantised checkpoint by name.

    Args:
        folder: where the checkpoint is.
        recipe: the rules that made it.
        summary: sizes and errors, and how many tensors each rule took.
        tied: names that are stored nowhere and mean another tensor.
        metadata: strings kept with the weights.
        weights_sha256: hash of the weights file.
        size_bytes: both files together.
    """

    folder: Path
    recipe: QuantRecipe
    summary: QuantSummary
    tied: Mapping[str, str]
    metadata: Mapping[str, str]
    weights_sha256: str
    size_bytes: int
    _schemes: Mapping[str, Scheme]
    _file: _MappedFile

    @classmethod
    def open(cls, folder: Path, check_hash: bool = True) -> QuantizedWeights:
        """Map a checkpoint that `quantize_to` wrote.

        Args:
            folder: the checkpoint.
            check_hash: read the weights file once and compare its hash (half a second per GB).

        Raises:
            QuantizationError: not such a checkpoint, of a newer format, incomplete or changed.
        """
        record = _read_record(folder / RECORD_FILE)
        path = folder / WEIGHTS_FILE
        _check_file(path, record, check_hash)
        shapes = {stats.name: stats.shape for stats in record.summary.stats}
        resolved = record.recipe.resolve(shapes)
        if record.summary.hits != resolved.hits:
            message = f"{folder / RECORD_FILE} is damaged: the rules take {list(resolved.hits)}"
            raise QuantizationError(message, _HINT)
        check_ties(record.tied, shapes)
        file = _map(path, stored_tensors(resolved.schemes, shapes))
        size_bytes = record.size_bytes + (folder / RECORD_FILE).stat().st_size
        return cls(
            folder=folder,
            recipe=record.recipe,
            summary=record.summary,
            tied=record.tied,
            metadata=record.metadata,
            weights_sha256=record.sha256,
            size_bytes=size_bytes,
            _schemes=resolved.schemes,
            _file=file,
        )

    @property
    def stats(self) -> tuple[TensorStats, ...]:
        """Give size and error of each stored tensor, in model order."""
        return self.summary.stats

    def names(self) -> tuple[str, ...]:
        """Give the stored tensors in model order; tied names are in `tied`."""
        return tuple(self._schemes)

    def storage_name(self, name: str) -> str:
        """Give the name under which `name` is stored: itself, or what it is tied to.

        Raises:
            QuantizationError: there is no such tensor.
        """
        stored = self.tied.get(name, name)
        if stored not in self._schemes:
            message = f"{self.folder}: no tensor {name} among {len(self._schemes)}"
            raise QuantizationError(message, "the checkpoint is of another model")
        return stored

    def scheme(self, name: str) -> Scheme:
        """Give the storage form of a tensor.

        Raises:
            QuantizationError: there is no such tensor.
        """
        return self._schemes[self.storage_name(name)]

    def get(self, name: str) -> QuantizedTensor | Tensor:
        """Give a tensor, or codes and scales, mapped from the file.

        Raises:
            QuantizationError: there is no such tensor.
        """
        stored = self.storage_name(name)
        scheme = self._schemes[stored]
        if not isinstance(scheme, GroupedInt):
            return self._file.get_tensor(stored)
        codes = self._file.get_tensor(f"{stored}.codes")
        scales = self._file.get_tensor(f"{stored}.scales")
        columns = codes.shape[1] * 8 // scheme.bits
        return QuantizedTensor(scheme, (codes.shape[0], columns), codes, scales)

    def dequantized(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Give a tensor as floats.

        Raises:
            QuantizationError: there is no such tensor.
        """
        stored = self.get(name)
        return stored.to(dtype) if isinstance(stored, Tensor) else stored.dequantize(dtype)


def _read_record(path: Path) -> _Record:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path.parent} is not a quantised checkpoint: it has no {path.name}"
        raise QuantizationError(message, _HINT) from error
    except (ValueError, RecursionError, OSError) as error:
        message = f"{path} is damaged: {error}"
        raise QuantizationError(message, _HINT) from error
    header = data if isinstance(data, dict) else {}
    found = header.get("format"), header.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        message = f"{path}: expected format {FORMAT} {FORMAT_VERSION}, found {found[0]} {found[1]}"
        raise QuantizationError(message, "upgrade, or " + _HINT)
    return _parse(path, header)


def _parse(path: Path, data: Mapping[str, object]) -> _Record:
    match data:
        case {
            "recipe": recipe,
            "hits": [*hits],
            "sqnr_db": (int() | float() | None) as sqnr_db,
            "tensors": [*tensors],
            "tied": dict(tied),
            "metadata": dict(metadata),
            "weights": {"file": "weights.safetensors", "sha256": str(sha), "size_bytes": int(size)},
        } if _strings(tied) and _strings(metadata):
            stats = tuple(TensorStats.from_json(tensor) for tensor in tensors)
            counts = tuple(hit for hit in hits if isinstance(hit, int))
            summary = QuantSummary(stats, db_from_json(sqnr_db), counts)
            return _Record(QuantRecipe.from_json(recipe), summary, tied, metadata, sha, size)
    message = f"{path} is damaged: a field is missing or has the wrong type"
    raise QuantizationError(message, _HINT)


def _strings(data: Mapping[object, object]) -> bool:
    return all(isinstance(text, str) for pair in data.items() for text in pair)


def _check_file(path: Path, record: _Record, check_hash: bool) -> None:
    size_bytes = path.stat().st_size if path.is_file() else 0
    if size_bytes != record.size_bytes:
        message = f"{path}: expected {record.size_bytes} bytes, found {size_bytes}"
        raise QuantizationError(message, _HINT)
    if check_hash and (found := file_sha256(path)) != record.sha256:
        message = f"{path} was changed: expected sha256 {record.sha256}, found {found}"
        raise QuantizationError(message, _HINT)


def _map(path: Path, expected: Mapping[str, Form]) -> _MappedFile:
    """Map the file and compare types and shapes of all tensors with what the record promises."""
    try:
        file = cast("_MappedFile", safe_open(str(path), framework="pt"))
        names = set(file.keys())
        if odd := sorted(names ^ set(expected)):
            message = f"{path}: {odd[0]} is missing or not expected, {len(odd)} such tensors in all"
            raise QuantizationError(message, _HINT)
        for name, form in expected.items():
            tensor = file.get_tensor(name)
            if (tensor.dtype, tuple(tensor.shape)) != form:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                message = f"{path}: {name}: expected {form[0]} {list(form[1])}, found {found}"
                raise QuantizationError(message, _HINT)
    except SafetensorError as error:
        message = f"{path} is damaged: {error}"
        raise QuantizationError(message, _HINT) from error
    return file
