"""Quantise a model into one checkpoint on disk, in pieces: memory never grows with a tensor.

Each thread takes a block of rows from the (mapped) source, quantises it, measures it against the
source, and writes it at its final offset. This module knows no model and no source format: it is
given names, shapes, a way to read, and a recipe.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from llama_quantize.checkpoint.safetensors_writer import SafetensorsWriter
from llama_quantize.checkpoint.summary import QuantSummary, TensorStats, db_to_json, ratio_db
from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import (
    BLOCK_WEIGHTS,
    CHUNK_WEIGHTS,
    check_range,
    dequantize_groups,
    quantize_groups,
    row_blocks,
)
from llama_quantize.packing import pack_int4
from llama_quantize.recipe import QuantRecipe, ResolvedRecipe
from llama_quantize.scheme import Float, GroupedInt, Scheme
from llama_quantize.tensor import Form, stored_forms
from llama_quantize.workers import worker_pool

FORMAT = "llama-quantize"
FORMAT_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
RECORD_FILE = "quantization.json"
_SOURCES = (torch.float32, torch.bfloat16, torch.float16)
_DAMAGED = "the weights are damaged; fetch or convert them again"
_Block = Callable[[slice], tuple[float, float]]


def quantize_to(
    folder: Path,
    names_shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    recipe: QuantRecipe,
    tied: Mapping[str, str],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> QuantSummary:
    """Quantise every tensor into `folder` (`weights.safetensors` and `quantization.json`).

    The same input gives the same bytes, whatever the number of threads.

    Args:
        folder: where to write; made if absent. It must not hold a checkpoint yet.
        names_shapes: the unique tensors in model order.
        read: gives a tensor by name; mapped from a file, so that only pages in use are in memory.
        recipe: what becomes of each tensor.
        tied: names that are stored nowhere and mean another tensor, such as a tied head.
        metadata: strings to keep with the weights, such as where they came from.
        progress: called with the source bytes done so far, from the calling thread.

    Returns:
        Size and error of each tensor.

    Raises:
        QuantizationError: the recipe does not fit, a tensor has another shape or type than
            announced, or a weight is NaN, infinite or too large; names the tensor and the place.
        OSError: the disk is full, or the folder cannot be written or holds a checkpoint.
    """
    resolved = recipe.resolve(names_shapes)
    check_ties(tied, names_shapes)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS_FILE
    forms = stored_tensors(resolved.schemes, names_shapes)
    stats: list[TensorStats] = []
    energies = _Energies()
    done_bytes = 0
    with SafetensorsWriter(path, forms, {"format": FORMAT}) as writer, worker_pool() as pool:
        for name, shape in names_shapes.items():
            weight = _checked(name, read(name), shape)
            scheme = resolved.schemes[name]
            block, parts = _plan(writer, name, weight, scheme)
            own = _Energies()
            for part, energy in zip(parts, pool.map(block, parts), strict=True):
                own.add(*energy)
                done_bytes += weight[part].nbytes
                progress(done_bytes)
            stats.append(_stats(name, scheme, shape, own))
            if isinstance(scheme, GroupedInt):
                energies.add(own.signal, own.noise)
    summary = QuantSummary(tuple(stats), energies.ratio_db(), resolved.hits)
    try:
        _write_record(folder, resolved, summary, tied, metadata or {})
    except BaseException:
        # Without its record the big file is of no use; an interrupt counts as well.
        for name in (WEIGHTS_FILE, RECORD_FILE):
            with suppress(OSError):
                (folder / name).unlink()
        raise
    return summary


def check_ties(tied: Mapping[str, str], stored: Mapping[str, object]) -> None:
    """Refuse a tied name that is itself stored, or that means something that is not.

    Raises:
        QuantizationError: see above.
    """
    for name, target in tied.items():
        if name in stored or target not in stored:
            message = f"{name} cannot be tied to {target}: expected only {target} among the tensors"
            raise QuantizationError(message)


def stored_tensors(
    schemes: Mapping[str, Scheme], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Form]:
    """Give name, type and shape of everything in the weights file."""
    forms: dict[str, Form] = {}
    for name, scheme in schemes.items():
        if isinstance(scheme, Float):
            forms[name] = (scheme.torch_dtype, tuple(shapes[name]))
        else:
            forms[f"{name}.codes"], forms[f"{name}.scales"] = stored_forms(scheme, shapes[name])
    return forms


def file_sha256(path: Path) -> str:
    """Hash a file without reading it into memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class _Energies:
    """Running sums of squares, in double precision."""

    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def add(self, signal: float, noise: float) -> None:
        self.signal += signal
        self.noise += noise

    def ratio_db(self) -> float:
        return ratio_db(self.signal, self.noise)


def _checked(name: str, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(weight.shape) != tuple(shape) or weight.dtype not in _SOURCES or not shape:
        found = f"{weight.dtype} {list(weight.shape)}"
        message = f"{name}: expected float32, bfloat16 or float16 {list(shape)}, found {found}"
        raise QuantizationError(message)
    return weight


def _plan(
    writer: SafetensorsWriter, name: str, weight: Tensor, scheme: Scheme
) -> tuple[_Block, list[slice]]:
    """Give the work on one block of rows, and all the blocks."""
    columns = math.prod(weight.shape[1:])
    parts = list(row_blocks(weight.shape[0], columns, BLOCK_WEIGHTS))
    if isinstance(scheme, Float):
        return partial(_store_floats, writer, name, weight, scheme), parts
    return partial(_store_groups, writer, name, weight, scheme), parts


def _store_groups(
    writer: SafetensorsWriter, name: str, weight: Tensor, scheme: GroupedInt, part: slice
) -> tuple[float, float]:
    """Quantise and write some rows; give the energies of signal and noise."""
    try:
        codes, scales = quantize_groups(weight[part], scheme)
    except QuantizationError:
        _refuse(name, weight, scheme)
        raise
    packed = pack_int4(codes) if scheme.bits == 4 else codes
    writer.write(f"{name}.codes", part.start, packed)
    writer.write(f"{name}.scales", part.start, scales)
    signal, noise = 0.0, 0.0
    for rows in row_blocks(len(codes), codes.shape[1], CHUNK_WEIGHTS):
        source = weight[part][rows].float()
        signal += _energy(source)
        noise += _energy(dequantize_groups(codes[rows], scales[rows]).sub_(source))
    return signal, noise


def _store_floats(
    writer: SafetensorsWriter, name: str, weight: Tensor, scheme: Float, part: slice
) -> tuple[float, float]:
    """Round and write some rows; give the energies of signal and noise."""
    signal, noise = 0.0, 0.0
    columns = math.prod(weight.shape[1:])
    for rows in row_blocks(part.stop - part.start, columns, CHUNK_WEIGHTS):
        source = weight[part][rows]
        stored = source.to(scheme.torch_dtype)
        first_row = part.start + rows.start
        if not bool(stored.isfinite().all()):
            raise _not_finite(name, source, stored, first_row)
        writer.write(name, first_row, stored)
        signal += _energy(source.float())
        noise += _energy(stored.float().sub_(source))
    return signal, noise


def _not_finite(name: str, source: Tensor, stored: Tensor, first_row: int) -> QuantizationError:
    place = [int(index) for index in stored.isfinite().logical_not_().nonzero()[0]]
    value = float(source[tuple(place)])
    place[0] += first_row
    message = f"{name}: value {value} at {place} is not a finite {str(stored.dtype)[6:]} number"
    hint = "store it as bfloat16" if math.isfinite(value) else _DAMAGED
    return QuantizationError(message, hint)


def _refuse(name: str, weight: Tensor, scheme: GroupedInt) -> None:
    """Name the first unusable value of a tensor."""
    try:
        check_range(weight, scheme)
    except QuantizationError as error:
        message = f"{name}: {error.message}"
        raise QuantizationError(message, error.hint) from error


def _energy(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values)) ** 2


def _stats(name: str, scheme: Scheme, shape: tuple[int, ...], energies: _Energies) -> TensorStats:
    forms = stored_tensors({name: scheme}, {name: shape}).values()
    size_bytes = sum(math.prod(size) * dtype.itemsize for dtype, size in forms)
    bits = 8 * size_bytes / max(1, math.prod(shape))
    return TensorStats(name, scheme.label, tuple(shape), energies.ratio_db(), bits, size_bytes)


def _write_record(
    folder: Path,
    resolved: ResolvedRecipe,
    summary: QuantSummary,
    tied: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Write quantization.json, last: a folder without it is not a checkpoint."""
    weights = folder / WEIGHTS_FILE
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "recipe": resolved.recipe.to_json(),
        "hits": list(summary.hits),
        "bits_per_weight": round(summary.bits_per_weight, 6),
        "sqnr_db": db_to_json(summary.sqnr_db),
        "tensors": list(_tensor_records(summary)),
        "tied": dict(tied),
        "metadata": dict(metadata),
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": file_sha256(weights),
            "size_bytes": weights.stat().st_size,
        },
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")


def _tensor_records(summary: QuantSummary) -> Iterator[dict[str, object]]:
    return (stats.to_json() for stats in summary.stats)
