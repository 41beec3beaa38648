"""Quantise a model into one checkpoint on disk, in pieces: memory never grows with a tensor.

Each thread takes a block of rows from the (mapped) source, quantises it, measures it against the
source, and writes it at its final offset. Only a method that asks for a weight's inputs sees the
whole weight. This module knows no model and no source format: it is given a source of tensors, a
recipe and, where a method needs it, a calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from torch import Tensor

from llama_quantize.calibration import Calibration
from llama_quantize.checkpoint import rows
from llama_quantize.checkpoint.files import RECORD_FILE, WEIGHTS_FILE, file_sha256
from llama_quantize.checkpoint.record import FORMAT, Record
from llama_quantize.checkpoint.safetensors_writer import SafetensorsWriter
from llama_quantize.checkpoint.summary import KEPT, QuantSummary, TensorStats, ratio_db
from llama_quantize.checkpoint.weights_file import map_file, mapped_tensor, stored_tensors
from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import BLOCK_WEIGHTS, FLOAT_DTYPES, row_blocks
from llama_quantize.lazy import LazyTensor
from llama_quantize.methods.method import Method, find_method
from llama_quantize.printable import shown_name
from llama_quantize.recipe import QuantRecipe, ResolvedRecipe
from llama_quantize.scheme import Float, GroupedInt, Scheme
from llama_quantize.source import TensorSource
from llama_quantize.tensor import QuantizedTensor
from llama_quantize.workers import worker_pool

Weight = Tensor | LazyTensor | QuantizedTensor


def quantize_to(
    folder: Path,
    source: TensorSource,
    recipe: QuantRecipe,
    calibration: Calibration | None = None,
    progress: Callable[[int], None] = lambda size_bytes: None,
    metadata: Mapping[str, str] | None = None,
) -> QuantSummary:
    """Quantise every tensor into `folder` (`weights.safetensors` and `quantization.json`).

    The same input gives the same bytes, whatever the number of threads. A tensor that comes
    quantised is copied, not rounded again.

    Args:
        folder: folder to write to; made if absent. It must not hold a checkpoint yet.
        source: tensors of the model, read one after the other in the order of its names.
        recipe: rules that say what becomes of each tensor.
        calibration: answers for the inputs of the weights; needed by some methods only.
        progress: called with the source bytes done so far, from the calling thread.
        metadata: strings to keep with the weights, such as where they came from.

    Returns:
        Size and error of each tensor.

    Raises:
        QuantizationError: the recipe does not fit, a method is unknown or needs a calibration, a
            tensor has another shape, type or scheme than announced, or a weight is NaN, infinite
            or too large; names the tensor and the place.
        OSError: the disk is full, or the folder cannot be written or holds a checkpoint.
    """
    resolved = recipe.resolve(source.shapes)
    check_ties(source.tied, source.shapes)
    methods = _methods(resolved, calibration)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS_FILE
    forms = stored_tensors(resolved.schemes, source.shapes)
    stats: list[TensorStats] = []
    rounded = _Energies()
    done_bytes = 0
    with SafetensorsWriter(path, forms, {"format": FORMAT}) as writer:
        for name in source.names:
            scheme, tensor = resolved.schemes[name], source.tensor(name)
            _check(name, tensor, source.shapes[name], resolved)
            store = _block_work(writer, name, tensor, scheme, methods, calibration)
            own = _Energies()
            # A pool a tensor: between them torch's own threads work for the calibration.
            with worker_pool() as pool:
                parts = _parts(source.shapes[name])
                for part, energies in zip(parts, pool.map(store, parts), strict=True):
                    own.add(*energies)
                    done_bytes += _source_bytes(tensor, part)
                    progress(done_bytes)
            stats.append(_stats(name, tensor, resolved, own))
            if isinstance(scheme, GroupedInt):
                rounded.add(own.signal, own.noise)
            if calibration is not None:
                calibration.quantised(name, mapped_tensor(map_file(path), name, scheme))
    summary = QuantSummary(tuple(stats), rounded.ratio_db(), resolved.hits)
    try:
        Record(
            recipe=recipe,
            summary=summary,
            tied=source.tied,
            metadata=metadata or {},
            calibration=None if calibration is None else calibration.origin,
            weights_sha256=file_sha256(path),
            weights_bytes=path.stat().st_size,
        ).write(folder)
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
        QuantizationError: names both.
    """
    for name, target in tied.items():
        if name in stored or target not in stored:
            first, other = shown_name(name), shown_name(target)
            message = f"{first} cannot be tied to {other}: expected only {other} among the tensors"
            raise QuantizationError(message)


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


def _methods(resolved: ResolvedRecipe, calibration: Calibration | None) -> dict[str, Method]:
    """Find each tensor's method, before anything is written."""
    methods = {name: find_method(method) for name, method in resolved.methods.items()}
    for name, method in methods.items():
        if method.needs and calibration is None:
            message = (
                f"{name}: the method {method.name} needs its inputs, and nothing computes them"
            )
            raise QuantizationError(message, "give a calibration, or name another method")
    return methods


def _check(name: str, tensor: Weight, shape: tuple[int, ...], resolved: ResolvedRecipe) -> None:
    """Refuse a tensor that is not what was announced, or that would have to be rounded twice."""
    if isinstance(tensor, QuantizedTensor):
        scheme, fits = tensor.scheme, True
        wanted = resolved.schemes[name]
        if scheme != wanted:
            message = (
                f"{name} is quantised already, as {scheme.label}, and the recipe "
                f"{resolved.recipe.name} wants {wanted.label}"
            )
            hint = "choose a recipe that keeps its form, or start from the original weights"
            raise QuantizationError(message, hint)
        found = scheme.label
    else:
        found, fits = str(tensor.dtype), tensor.dtype in FLOAT_DTYPES and bool(shape)
    if not fits or tuple(tensor.shape) != tuple(shape):
        expected = f"float32, bfloat16 or float16 {list(shape)}"
        message = f"{name}: expected {expected}, found {found} {list(tensor.shape)}"
        raise QuantizationError(message)


def _block_work(
    writer: SafetensorsWriter,
    name: str,
    tensor: Weight,
    scheme: Scheme,
    methods: Mapping[str, Method],
    calibration: Calibration | None,
) -> Callable[[slice], rows.Energies]:
    """Return the work on one block of a tensor's rows, which runs on several threads at once."""
    if isinstance(tensor, QuantizedTensor):
        return partial(rows.copy_rows, writer, name, tensor)
    if isinstance(scheme, Float):
        return partial(rows.round_rows, writer, name, tensor, scheme)
    method = methods[name]
    if method.needs and calibration is not None:
        weight = tensor.whole() if isinstance(tensor, LazyTensor) else tensor
        codes, scales = _quantize_whole(name, weight, scheme, method, calibration)

        def write(part: slice) -> rows.Energies:
            quantized = codes[part], scales[part]
            return rows.write_codes(writer, name, weight[part], scheme, quantized, part)

        return write
    return partial(rows.quantize_rows, writer, name, tensor, scheme, method)


def _quantize_whole(
    name: str, weight: Tensor, scheme: GroupedInt, method: Method, calibration: Calibration
) -> tuple[Tensor, Tensor]:
    """Quantise a weight whose method looks at its inputs, on the calling thread."""
    finished = calibration.finished(name, scheme)
    if finished is not None:
        return finished.unpacked(), finished.scales
    inputs = calibration.inputs(name, method.needs)
    try:
        return method.quantize(weight, scheme, inputs)
    except QuantizationError as error:
        raise rows.located(name, weight, scheme, error) from error


def _parts(shape: tuple[int, ...]) -> list[slice]:
    return list(row_blocks(shape[0], math.prod(shape[1:]), BLOCK_WEIGHTS))


def _source_bytes(tensor: Weight, part: slice) -> int:
    if isinstance(tensor, QuantizedTensor):
        return tensor.codes[part].nbytes + tensor.scales[part].nbytes
    if isinstance(tensor, LazyTensor):
        return len(range(part.start, part.stop)) * tensor.row_bytes
    return tensor[part].nbytes


def _stats(
    name: str,
    tensor: Weight,
    resolved: ResolvedRecipe,
    energies: _Energies,
) -> TensorStats:
    shape, scheme = tuple(tensor.shape), resolved.schemes[name]
    size_bytes = scheme.size_bytes(shape)
    kept = tensor if isinstance(tensor, QuantizedTensor) else None
    return TensorStats(
        name=name,
        label=scheme.label,
        method=KEPT if kept else resolved.methods.get(name),
        shape=shape,
        sqnr_db=kept.scales_sqnr_db if kept else energies.ratio_db(),
        bits_per_weight=8 * size_bytes / max(1, math.prod(shape)),
        size_bytes=size_bytes,
    )
