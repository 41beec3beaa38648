"""The scales of Meta's int4 checkpoints: found, put together, checked; what rounding them costs.

It knows shapes, spellings and values of scales and zero points; it knows no code.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_export.checkpoints.meta_checks import FLOATS, type_name
from llama_export.checkpoints.meta_names import MetaTensor
from llama_export.checkpoints.meta_shards import Joined, Shards, join_parts
from llama_export.errors import CheckpointError

if TYPE_CHECKING:
    pass

_DAMAGED = "the weights are damaged; fetch or convert them again"
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Scales:
    """The scales of one weight.

    Args:
        name: their name in the files.
        joined: they, `[N, G]`, in the order of the files' rows.
        repeated: where they were repeated for each weight, `[N, K]`; None: they were not.
        group_size: number of weights that share one.
    """

    name: str
    joined: Joined = field(repr=False)
    repeated: Joined | None = field(repr=False)
    group_size: int

    @property
    def size_bytes(self) -> int:
        """Bytes of them in the files."""
        return sum(part.numel() * part.itemsize for part in (self.repeated or self.joined).parts)

    def require_repeated(self) -> None:
        """Refuse scales for each weight that are not the same within a group.

        Raises:
            CheckpointError: names the row.
        """
        if self.repeated is None:
            return
        for start in range(0, self.joined.shape[0], _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            each = self.repeated.rows(rows).unflatten(1, (-1, self.group_size))
            odd = each.ne(each[:, :, :1]).flatten(1).any(1)
            if bool(odd.any()):
                row = start + int(odd.nonzero()[0])
                message = (
                    f"{self.name}: row {row} has other scales within a group of {self.group_size}"
                )
                raise CheckpointError(message, "params.json names another group_size; correct it")


def find_scales(shards: Shards, weight: MetaTensor, group_size: int | None) -> Scales:
    """Find the scales of a weight, in any of the shapes that they are written in.

    Args:
        shards: the opened files.
        weight: the weight.
        group_size: number of weights that share a scale; None: all of a row.

    Raises:
        CheckpointError: they are missing, of another shape, or no floats.
    """
    name = _beside(weight, "scales")
    parts = shards.parts(name)
    if not parts:
        message = f"{name} is missing"
        raise CheckpointError(message)
    if wrong := {type_name(part.dtype) for part in parts} - set(FLOATS):
        message = f"{name} must be {' or '.join(FLOATS)}, found {wrong.pop()}"
        raise CheckpointError(message)
    rows, columns = weight.shape
    if group_size is None:
        parts = tuple(part.unsqueeze(1) if part.ndim == 1 else part for part in parts)
        # A table that is split by columns has all its rows, and so their scales, in each shard.
        splits = (0,) if sum(map(len, parts)) == rows else ()
        joined = join_parts(MetaTensor(name, (rows, 1), splits), parts)
        return Scales(name, joined, None, columns)
    if columns % group_size:
        message = f"{weight.name}: {columns} columns do not divide into groups of {group_size}"
        raise CheckpointError(message)
    whole = sum(part.shape[-1] for part in parts) if 1 in weight.splits else parts[0].shape[-1]
    if whole == columns != columns // group_size:
        repeated = join_parts(MetaTensor(name, (rows, columns), weight.splits), parts)
        parts = tuple(part[:, ::group_size] for part in parts)
    else:
        repeated = None
    joined = join_parts(MetaTensor(name, (rows, columns // group_size), weight.splits), parts)
    return Scales(name, joined, repeated, group_size)


def value_faults(shards: Shards, scales: Scales) -> list[str]:
    """Name a scale that is not above zero, and zero points that are not zero."""
    import torch

    from llama_quantize.groupwise import MAX_SCALE

    for part in scales.joined.parts:
        # Written so that a NaN, for which every comparison is false, is found as well.
        bad = ((part > 0) & (part <= MAX_SCALE)).logical_not_()
        if bool(bad.any()):
            row, group = (int(at) for at in bad.nonzero()[0])
            value = float(part[row, group])
            return [f"{scales.name}: {value} at [{row}, {group}]; expected above 0"]
    zeros = shards.parts(scales.name.removesuffix("scales") + "zeros")
    if any(bool(torch.count_nonzero(part)) for part in zeros):
        name = scales.name.removesuffix("scales") + "zeros"
        return [f"{name} holds zero points that are not 0; no target computes with such weights"]
    return []


def rounding_note(found: Collection[Scales]) -> str:
    """Describe what rounding the scales of kept codes changes."""
    import torch

    from llama_quantize.checkpoint.summary import ratio_db
    from llama_quantize.groupwise import storable

    signal = noise = 0.0
    for part in (part for scales in found for part in scales.joined.parts):
        given = part.float()
        signal += float(torch.linalg.vector_norm(given)) ** 2
        noise += float(torch.linalg.vector_norm(given - storable(given))) ** 2
    kept = f"the codes of {len(found)} weights are kept bit for bit"
    if not noise:
        return f"{kept}, and so are their scales, which came as bfloat16 values"
    types = {type_name(part.dtype) for scales in found for part in scales.joined.parts}
    lost_db = ratio_db(signal, noise)
    return (
        f"{kept}; their scales are rounded from {' and '.join(sorted(types))} to bfloat16, which "
        f"leaves {lost_db:.1f} dB of them, far more than int4 leaves of a weight"
    )


def _beside(weight: MetaTensor, what: str) -> str:
    return f"{weight.name.removesuffix('.weight')}.{what}"
