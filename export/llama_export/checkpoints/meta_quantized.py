"""The tensors of Meta's int4 checkpoints, SpinQuant's and QLoRA's: codes are kept bit for bit.

Codes lie unpacked, one in a byte, beside their scales. The scales alone are rounded, to bfloat16.
Where side branches are to be merged no code is kept: the weights are floats, computed as they are
read. It knows nothing of params.json.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.meta_checks import FLOATS, check_tensors, raise_any
from llama_export.checkpoints.meta_names import META_HEAD, META_TABLE, MetaTensor, meta_tensors
from llama_export.checkpoints.meta_scales import Scales, find_scales, rounding_note, value_faults
from llama_export.checkpoints.meta_shards import Shards, in_their_order, join, rows_in_their_order
from llama_export.checkpoints.model_tensors import ModelTensors
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import is_adaptor
from llama_quantize.errors import QuantizationError

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.recipe import QuantRecipe
    from llama_quantize.scheme import GroupedInt, Scheme
    from llama_quantize.tensor import QuantizedTensor

_TABLES = (META_TABLE, META_HEAD)


@dataclass(frozen=True)
class Adaptors:
    """Side branches that are merged into the weights.

    Args:
        rank: width of them.
        scale: factor of their output.
    """

    rank: int
    scale: float


@dataclass(frozen=True)
class MetaQuantizedCheckpoint(ModelTensors):
    """An open checkpoint of codes whose every tensor was found to be what params.json asks for.

    Args:
        folder: folder or file that was named.
        size_bytes: size of these tensors in the files.
        recipe: forms of the codes that are kept, and of the rest; None: none are kept.
        notes: what was inferred, rounded or merged.
        kept_notes: those of them that are true as long as codes are kept.
    """

    folder: Path
    size_bytes: int
    recipe: QuantRecipe | None
    notes: tuple[str, ...]
    _tensors: Mapping[str, MetaTensor] = field(repr=False)
    _groups: Mapping[str, int | None] = field(repr=False)
    _shards: Shards = field(repr=False)
    _merged: Adaptors | None = None
    kept_notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        folder: Path,
        config: LlamaConfig,
        shards: Shards,
        *,
        group_size: int,
        merged: Adaptors | None = None,
        notes: tuple[str, ...] = (),
    ) -> MetaQuantizedCheckpoint:
        """Check all of a checkpoint but its codes.

        Args:
            folder: folder or file that was named.
            config: shape of the model, without side branches that are merged.
            shards: the opened files.
            group_size: number of weights of the blocks that share a scale.
            merged: side branches that are merged; None: they are kept beside, if there are any.
            notes: what was inferred already.

        Raises:
            CheckpointError: a tensor is missing, unexpected, or of the wrong shape or type; a scale
                is not above zero, or a zero point is not zero.
        """
        tensors = meta_tensors(config)
        groups = _groups(tensors, group_size)
        branches = {} if merged is None else _branches(config, merged)
        codes = {tensors[name].name for name in groups}
        check_tensors(
            shards,
            [*tensors.values(), *branches.values()],
            lambda name: ("int8",) if name in codes else FLOATS,
            _spare(codes, tied=config.tie_word_embeddings),
            config.num_hidden_layers,
        )
        scales = _scales(shards, tensors, groups)
        opened = cls(
            folder=folder,
            config=config,
            shapes={name: tensor.shape for name, tensor in tensors.items()},
            size_bytes=shards.size_bytes([each.name for each in tensors.values()])
            + sum(each.size_bytes for each in scales),
            recipe=None if merged else _recipe(tensors, groups),
            notes=notes,
            _tensors={**tensors, **branches},
            _groups=groups,
            _shards=shards,
            _merged=merged,
        )
        if merged is not None:
            return replace(opened, notes=(*notes, opened._merging_note(merged)))
        kept = (rounding_note(scales),)
        return replace(opened, notes=(*notes, *kept), kept_notes=kept)

    def tensor(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Take over the codes of a tensor, or return its floats.

        Raises:
            CheckpointError: there is no tensor of that name, or a code or scale is out of range.
        """
        self.require(name, self.folder)
        tensor = self._tensors[name]
        if name not in self._groups:
            return in_their_order(join(self._shards, tensor), tensor)
        if self._merged is not None:
            return self._floats(name, self._merged)
        return self._kept(name, tensor)

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._shards.release()

    def _kept(self, name: str, tensor: MetaTensor) -> QuantizedTensor:
        from llama_quantize.keep import keep_codes

        scales = find_scales(self._shards, tensor, self._groups[name])
        everything = slice(0, tensor.shape[0])
        codes = rows_in_their_order(join(self._shards, tensor), tensor)(everything)
        try:
            scales.require_repeated()
            values = rows_in_their_order(scales.joined, tensor)(everything)
            return keep_codes(codes, values, _form(tensor, self._groups[name]))
        except QuantizationError as error:
            message = f"{self.folder}: {tensor.name}: {error.message}"
            raise CheckpointError(message, error.hint) from None

    def _floats(self, name: str, merged: Adaptors) -> LazyTensor:
        """Compute a weight and what its side branch adds, as rows are read."""
        import torch

        from llama_quantize.groupwise import dequantize_groups
        from llama_quantize.lazy import LazyTensor

        tensor = self._tensors[name]
        scales = find_scales(self._shards, tensor, self._groups[name])
        scales.require_repeated()
        codes_of = rows_in_their_order(join(self._shards, tensor), tensor)
        scales_of = rows_in_their_order(scales.joined, tensor)
        added_to = self._side_branch(name, merged)

        def read(rows: slice | Tensor) -> Tensor:
            return added_to(dequantize_groups(codes_of(rows), scales_of(rows)), rows)

        return LazyTensor(tensor.shape, torch.float32, tensor.shape[1], read)

    def _side_branch(
        self, name: str, merged: Adaptors
    ) -> Callable[[Tensor, slice | Tensor], Tensor]:
        """Return what adds a side branch to some rows of a weight; a table has none."""
        stem = name.removesuffix(".weight")
        into, out = (self._tensors.get(f"{stem}.adaptor.{part}.weight") for part in "AB")
        if into is None or out is None:
            return lambda weight, rows: weight
        inner = join(self._shards, into).whole().float()
        outer_of = rows_in_their_order(join(self._shards, out), out)
        return lambda weight, rows: weight.addmm_(outer_of(rows).float(), inner, alpha=merged.scale)

    def _merging_note(self, merged: Adaptors) -> str:
        """Describe what merging costs, measured on the first weight by the default recipe."""
        from llama_quantize.checkpoint.summary import ratio_db
        from llama_quantize.groupwise import dequantize_groups
        from llama_quantize.methods.method import find_method

        name = next(name for name, group in self._groups.items() if group is not None)
        scheme = _form(self._tensors[name], self._groups[name])
        weight = self._floats(name, merged).whole()
        found = find_method("clip_search").quantize(weight, scheme)
        noise = dequantize_groups(*found).sub_(weight)
        lost_db = ratio_db(float(weight.pow(2).sum()), float(noise.pow(2).sum()))
        return (
            "the side branches were merged into the weights, whose codes are not kept: they are "
            f"floats, to be quantised again, which leaves {lost_db:.1f} dB as {scheme.label} "
            f"(measured on {name})"
        )


def _groups(tensors: Mapping[str, MetaTensor], group_size: int) -> dict[str, int | None]:
    """Return how many weights of each quantised tensor share a scale; None: all of a row."""
    return {
        name: None if tensor.name in _TABLES else group_size
        for name, tensor in tensors.items()
        if len(tensor.shape) == 2 and not is_adaptor(name)
    }


def _branches(config: LlamaConfig, merged: Adaptors) -> dict[str, MetaTensor]:
    beside = replace(config, adaptor_rank=merged.rank, adaptor_scale=merged.scale)
    return {name: each for name, each in meta_tensors(beside).items() if is_adaptor(name)}


def _spare(codes: Collection[str], *, tied: bool) -> Callable[[str], bool]:
    """Return what tells the tensors that may stand beside those of the model."""
    beside = {
        name.removesuffix(".weight") + ending for name in codes for ending in (".scales", ".zeros")
    }
    if tied:
        beside |= {META_HEAD, "output.scales", "output.zeros"}
    return lambda name: name in beside


def _scales(
    shards: Shards, tensors: Mapping[str, MetaTensor], groups: Mapping[str, int | None]
) -> list[Scales]:
    """Find and check all scales, and name every fault that is found."""
    found, problems = [], []
    for name, group in groups.items():
        try:
            scales = find_scales(shards, tensors[name], group)
        except CheckpointError as error:
            problems.append(error.message)
            continue
        found.append(scales)
        problems += value_faults(shards, scales)
    raise_any(shards.folder, problems)
    return found


def _form(tensor: MetaTensor, group: int | None) -> GroupedInt:
    from llama_quantize.scheme import GroupedInt

    return GroupedInt(8, None) if tensor.name in _TABLES else GroupedInt(4, group)


def _recipe(tensors: Mapping[str, MetaTensor], groups: Mapping[str, int | None]) -> QuantRecipe:
    from llama_quantize.kept import kept_recipe
    from llama_quantize.scheme import Float

    schemes: dict[str, Scheme] = {
        name: _form(tensor, groups[name]) if name in groups else Float("bfloat16")
        for name, tensor in tensors.items()
    }
    sizes = {group for group in groups.values() if group is not None}
    return kept_recipe(schemes, f"kept int4 g{min(sizes)}")
