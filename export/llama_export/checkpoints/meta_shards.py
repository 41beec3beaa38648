"""Open the shards of a checkpoint in Meta's layout, and put together what they hold parts of.

A joined tensor is never in memory whole: its rows are gathered as they are read. It knows names,
shapes and dtypes, as they are expected and as they are found; it knows no quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.meta_names import META_HEAD, META_TABLE, MetaTensor, meta_order
from llama_export.checkpoints.pickled import load_pickled
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.lazy import LazyTensor

_COMPARED_ROWS = 4096
AGAIN = "download all shards again; if they are complete, they are not of the model in params.json"


class Shards:
    """The tensors of all shards, mapped.

    Args:
        folder: folder that messages name.
        files: files of the weights, in the order of their shards.
    """

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder = folder
        self._files = files
        self._opened: tuple[Mapping[str, Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> list[str]:
        """List the names that any shard holds."""
        return list(dict.fromkeys(name for shard in self._tensors() for name in shard))

    def parts(self, name: str) -> tuple[Tensor, ...]:
        """Return what each shard holds of a tensor; empty: none holds any.

        Raises:
            CheckpointError: some of them hold it and others do not.
        """
        found = tuple(shard[name] for shard in self._tensors() if name in shard)
        if found and len(found) != len(self):
            without = [
                file.name
                for file, shard in zip(self._files, self._tensors(), strict=True)
                if name not in shard
            ]
            message = f"{self.folder}: {', '.join(without)} holds no {shown_name(name)}"
            raise CheckpointError(message, AGAIN)
        return found

    def size_bytes(self, names: Collection[str]) -> int:
        """Add up the bytes of some tensors in all shards."""
        tensors = (shard[name] for shard in self._tensors() for name in names if name in shard)
        return sum(each.numel() * each.itemsize for each in tensors)

    def release(self) -> None:
        """Unmap the files; a later read maps them again."""
        self._opened = ()

    def _tensors(self) -> tuple[Mapping[str, Tensor], ...]:
        if not self._opened:
            self._opened = tuple(load_pickled(file, inside="model") for file in self._files)
        return self._opened


@dataclass(frozen=True)
class Joined:
    """A tensor whose parts lie in several shards.

    Args:
        parts: what each shard holds of it; one, where each holds all of it.
        dim: dimension along which they follow each other.
    """

    parts: tuple[Tensor, ...] = field(repr=False)
    dim: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all parts together."""
        first = list(self.parts[0].shape)
        first[self.dim] = sum(part.shape[self.dim] for part in self.parts)
        return tuple(first)

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Gather some rows, given as a slice or by their numbers, int64 `[n]`."""
        import torch

        if len(self.parts) == 1:
            return self.parts[0][rows]
        if self.dim == 1:
            return torch.cat([part[rows] for part in self.parts], dim=1)
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(self.shape[0]))
        gathered = self.parts[0].new_empty(len(rows), *self.shape[1:])
        start = 0
        for part in self.parts:
            inside = (rows >= start) & (rows < start + len(part))
            gathered[inside] = part[rows[inside] - start]
            start += len(part)
        return gathered

    def whole(self) -> Tensor:
        """Return all of it: mapped where it is one part."""
        return self.rows(slice(None))


def join(shards: Shards, tensor: MetaTensor) -> Joined:
    """Find out how the shards split a tensor.

    Raises:
        CheckpointError: it is missing, or its parts do not make up the shape that it must have.
    """
    parts = shards.parts(tensor.name)
    if not parts:
        message = f"{tensor.name} is missing"
        raise CheckpointError(message)
    return join_parts(tensor, parts)


def join_parts(tensor: MetaTensor, parts: tuple[Tensor, ...]) -> Joined:
    """Find out how shards split a tensor from what each holds of it, as `join` does."""
    if len(parts) == 1 or not tensor.splits:
        _require_shape(tensor, parts)
        _require_copies(tensor.name, parts)
        return Joined(parts[:1])
    if all(part.ndim == len(tensor.shape) for part in parts):
        for dim in tensor.splits:
            found = Joined(parts, dim)
            if found.shape == tensor.shape and _fit_beside(parts, dim):
                return found
    shapes = [list(part.shape) for part in parts]
    message = f"{tensor.name} must be {list(tensor.shape)} in all, found {_several(shapes)}"
    raise CheckpointError(message)


def rows_in_their_order(joined: Joined, tensor: MetaTensor) -> Callable[[slice | Tensor], Tensor]:
    """Return what reads rows by their places in Hugging Face's order."""
    import torch

    if not tensor.heads:
        return joined.rows
    order = torch.tensor(meta_order(tensor.shape[0], tensor.heads))
    return lambda rows: joined.rows(order[rows])


def in_their_order(joined: Joined, tensor: MetaTensor) -> Tensor | LazyTensor:
    """Return a tensor with its rows in Hugging Face's order: mapped, or gathered as it is read."""
    from llama_quantize.lazy import LazyTensor

    part = joined.parts[0]
    if len(joined.parts) == 1 and not tensor.heads:
        return part
    row_bytes = tensor.shape[1] * part.itemsize
    return LazyTensor(tensor.shape, part.dtype, row_bytes, rows_in_their_order(joined, tensor))


def table_rows(shards: Shards, dim: int) -> int:
    """Return the rows of the token table, whichever way the shards split its `dim` columns."""
    parts = [part for part in shards.parts(META_TABLE) if part.ndim == 2]
    by_rows = all(part.shape[1] == dim for part in parts)
    return sum(len(part) for part in parts) if by_rows else max(map(len, parts), default=0)


def is_tied(shards: Shards) -> bool:
    """Whether the head is the table: absent, the same bytes in the file, or a copy of them."""
    import torch

    heads, tables = shards.parts(META_HEAD), shards.parts(META_TABLE)
    if not heads:
        return True
    for head, table in zip(heads, tables, strict=True):
        if head.shape != table.shape or head.dtype != table.dtype:
            return False
        if head.data_ptr() == table.data_ptr():
            continue
        for row in range(0, len(head), _COMPARED_ROWS):
            block = slice(row, row + _COMPARED_ROWS)
            if not torch.equal(_raw(head[block]), _raw(table[block])):
                return False
    return True


def _require_shape(tensor: MetaTensor, parts: Sequence[Tensor]) -> None:
    wrong = [list(part.shape) for part in parts if tuple(part.shape) != tensor.shape]
    if wrong:
        message = f"{tensor.name} must be {list(tensor.shape)} by params.json, found {wrong[0]}"
        raise CheckpointError(message)


def _require_copies(name: str, parts: Sequence[Tensor]) -> None:
    import torch

    for number, part in enumerate(parts[1:], start=1):
        same = part.dtype == parts[0].dtype
        if not same or not torch.equal(_raw(part), _raw(parts[0])):
            message = f"{name} differs between shard 0 and shard {number}: they are of two models"
            raise CheckpointError(message)


def _raw(tensor: Tensor) -> Tensor:
    """View numbers as bytes: then NaN equals itself, and -0 does not equal 0."""
    import torch

    return tensor.contiguous().view(torch.uint8)


def _fit_beside(parts: Sequence[Tensor], dim: int) -> bool:
    """Whether parts have the same type, and the same size in all dimensions but one."""
    others = {(part.dtype, part.shape[:dim], part.shape[dim + 1 :]) for part in parts}
    return len(others) == 1


def _several(shapes: list[list[int]]) -> str:
    """Write some shapes: `8 of [16, 64]`, or each of them."""
    if all(shape == shapes[0] for shape in shapes):
        return f"{len(shapes)} parts of {shapes[0]}"
    return " + ".join(map(str, shapes[:4])) + (" + ..." if len(shapes) > 4 else "")
