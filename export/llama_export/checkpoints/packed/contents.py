"""Sort the tensors of files into packed weights and floats, and find what is wrong with them.

A packed weight then stands for a tensor of floats under its Hugging Face name, so that all other
names are judged as in any checkpoint. It reads no weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llama_export.checkpoints.packed.packing import FLOATS, WEIGHT, Found, Method, Part
from llama_export.checkpoints.safetensors_header import TensorEntry
from llama_export.checkpoints.weight_files import WeightFiles
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

Shapes = Mapping[str, tuple[int, ...]]

_END = f".{WEIGHT}"
_PREFIX = "model."
# What rounds activations or the cache; every target rounds activations in its own way.
_ACTIVATIONS = re.compile(
    r"(model\.)?layers\.\d+\.(self_attn|mlp)\.(\w+\.)*"
    r"((input|output|activation|act|prob|k|v|q|kv)_(scale|zero_point|global_scale|scale_ub))"
    r"|lm_head\.(input|output|activation)_(scale|zero_point|global_scale|scale_ub)"
)


@dataclass(frozen=True, eq=False)
class Contents:
    """What a checkpoint's files hold.

    Args:
        packed: each packed weight, by its Hugging Face name.
        entries: all other tensors, and a tensor of floats for each packed weight.
        activations: tensors that are passed over, because they round activations.
        problems: why the files cannot be used.
    """

    packed: Mapping[str, Found] = field(repr=False)
    entries: Mapping[str, TensorEntry] = field(repr=False)
    activations: tuple[str, ...]
    problems: tuple[str, ...]


def sort_out(files: WeightFiles, shapes: Shapes, method: Method) -> Contents:
    """Find the packed weights of a model among the tensors of its files.

    Args:
        files: files of the checkpoint.
        shapes: shape of each tensor of the model, and of a tied head.
        method: what packed them.
    """
    activations = tuple(name for name in files.entries if _ACTIVATIONS.fullmatch(name))
    entries = {name: each for name, each in files.entries.items() if name not in activations}
    packed: dict[str, Found] = {}
    problems: list[str] = []
    for module, ends in _by_module(entries, shapes).items():
        if not _is_packed(ends, method):
            continue
        name = module if module.startswith(("model.", "lm_head")) else _PREFIX + module
        found = _found(files, module, ends, shapes[name + _END])
        try:
            parts = method.parts(found)
            faults = list(_faults(found, parts))
        except CheckpointError as error:
            parts, faults = {}, [error.message]
        problems += faults
        for end in ends:
            if end in parts or end in method.marks or end == WEIGHT:
                del entries[f"{module}.{end}"]
        size_bytes = sum(each.size_bytes for each in ends.values())
        entries[module + _END] = TensorEntry("BF16", found.shape, 0, size_bytes)
        packed[name + _END] = found
    return Contents(packed, entries, activations, tuple(problems))


def _by_module(
    entries: Mapping[str, TensorEntry], shapes: Shapes
) -> dict[str, dict[str, TensorEntry]]:
    """Return the tensors of each module that has a matrix, by the ends of their names."""
    named = [name.removesuffix(_END) for name, shape in shapes.items() if len(shape) == 2]
    modules = {each for name in named for each in (name, name.removeprefix(_PREFIX))}
    found: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in entries.items():
        for dot in re.finditer(r"\.", name):
            module = name[: dot.start()]
            if module in modules:
                found.setdefault(module, {})[name[dot.end() :]] = entry
                break
    return found


def _is_packed(ends: Mapping[str, TensorEntry], method: Method) -> bool:
    weight = ends.get(WEIGHT)
    floats = weight is None or weight.dtype in (*FLOATS, "F64")
    return not floats or not method.marks.isdisjoint(ends)


def _found(
    files: WeightFiles, module: str, ends: Mapping[str, TensorEntry], shape: tuple[int, ...]
) -> Found:
    rows, columns = shape

    return Found(
        module,
        (rows, columns),
        ends,
        look=lambda end: files.array(f"{module}.{end}"),
        metadata=lambda: files.metadata,
    )


def _faults(found: Found, parts: Mapping[str, Part]) -> Iterator[str]:
    """Name what is missing, of another form, or there twice."""
    for end, each in parts.items():
        name, entry = f"{found.module}.{end}", found.entries.get(end)
        if entry is None:
            if each.needed:
                yield f"{name} is missing"
        elif entry.shape not in each.shapes:
            expected = " or ".join(str(list(shape)) for shape in each.shapes)
            yield f"{name} must be {expected}, found {list(entry.shape)}"
        elif entry.dtype not in each.dtypes:
            expected = " or ".join(each.dtypes)
            yield f"{name} must be {expected}, found {shown_name(entry.dtype)}"
        elif not math.prod(entry.shape):
            yield f"{name} is empty"
    if WEIGHT in found.entries and WEIGHT not in parts and parts:
        yield f"{found.module}.{WEIGHT} is there beside {next(iter(parts))}: it is packed and not"
