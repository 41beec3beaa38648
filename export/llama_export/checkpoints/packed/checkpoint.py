"""A Hugging Face checkpoint of packed weights: codes are kept where every target has their form.

It joins the files, which hold tensors by name, with the method that says what they mean. What has
no such form is computed as floats, row by row, and then quantised again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.checkpoints.hugging_face_files import CONFIG_FILE, no_folder
from llama_export.checkpoints.model_tensors import ModelTensors
from llama_export.checkpoints.packed.contents import Contents, sort_out
from llama_export.checkpoints.packed.methods import method_of
from llama_export.checkpoints.packed.packing import Method, Packing, dequantise, keep
from llama_export.checkpoints.packed.schemes import Kept, choose_kept, kept_notes_of, lost_notes_of
from llama_export.checkpoints.weight_files import WeightFiles, unusable
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE, expected_shapes
from llama_quantize.errors import QuantizationError

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.recipe import QuantRecipe
    from llama_quantize.tensor import QuantizedTensor

_HINT = "download the checkpoint again; if it is whole, config.json is of another one"
_FLOATS_HINT = "take quantization_config out of config.json, if the weights are not quantised"


@dataclass(frozen=True)
class PackedCheckpoint(ModelTensors):
    """An open checkpoint whose every tensor was found to be what its config asks for.

    Args:
        plain: the same checkpoint with a tensor of floats for each packed weight.
        notes: what a user must know of how it is read.
        kept_notes: those of them that are true as long as codes are kept.
    """

    plain: HfCheckpoint
    notes: tuple[str, ...]
    kept_notes: tuple[str, ...]
    _files: WeightFiles = field(repr=False)
    _contents: Contents = field(repr=False)
    _packings: Mapping[str, Packing] = field(repr=False)
    _kept: Kept = field(repr=False)

    @classmethod
    def open(cls, folder: Path, config: LlamaConfig | None = None) -> PackedCheckpoint:
        """Open a checkpoint folder and check all of it but most values.

        Args:
            folder: folder that holds config.json and the weights.
            config: what its config.json says; None: it is read now.

        Raises:
            ConfigError: config.json is missing or wrong.
            UnsupportedModelError: it is not a Llama that can be exported, or its weights are packed
                in a way that is not read.
            CheckpointError: a file is missing or damaged, or a tensor is missing, doubled, of the
                wrong shape or dtype, or contradicts the config; every fault found is named.
        """
        if not folder.is_dir():
            raise no_folder(folder)
        config = config or LlamaConfig.read(folder / CONFIG_FILE)
        method = method_of(folder / CONFIG_FILE)
        files = WeightFiles.open(folder)
        shapes = expected_shapes(config)
        contents = sort_out(files, {**shapes, HEAD: shapes[TABLE]}, method)
        _require_packed(folder, contents, method, tied=HEAD not in shapes)
        plain = HfCheckpoint.of(files, contents.entries, config)
        packings = _packings(folder, contents, method)
        kept = choose_kept(packings, shapes)
        kept_notes = kept_notes_of(method.label, packings, kept, contents.packed)
        passed_over = _activations_note(contents.activations)
        return cls(
            config=config,
            shapes=shapes,
            plain=plain,
            notes=(
                *plain.notes,
                *kept_notes,
                *lost_notes_of(method.label, packings, kept),
                *passed_over,
            ),
            kept_notes=kept_notes,
            _files=files,
            _contents=contents,
            _packings=packings,
            _kept=kept,
        )

    @property
    def folder(self) -> Path:
        """Folder that holds it."""
        return self.plain.folder

    @property
    def size_bytes(self) -> int:
        """Size of these tensors in the files."""
        return self.plain.size_bytes

    @property
    def recipe(self) -> QuantRecipe | None:
        """Forms of the codes that are kept, and of the rest; None: none are kept."""
        return self._kept.recipe

    def tensor(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Map a tensor, take over its codes, or return its floats, computed as they are read.

        Raises:
            CheckpointError: there is no tensor of that name, its codes or scales are not to be
                used, or a tied head is stored that differs from its table.
        """
        packing = self._packings.get(name)
        if packing is None:
            return self.plain.tensor(name)
        if packing.kept is None or name not in self._kept.names:
            return self._lazy(name, packing)
        found = self._contents.packed[name]
        try:
            return keep(packing, packing.kept, self._reader(name), found.shape)
        except QuantizationError as error:
            message = f"{self.folder}: {name}: {error.message}"
            raise CheckpointError(message, error.hint) from None

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._files.release()

    def _reader(self, name: str) -> Callable[[str], Tensor]:
        module = self._contents.packed[name].module
        return lambda end: self._files.tensor(f"{module}.{end}")

    def _lazy(self, name: str, packing: Packing) -> LazyTensor:
        from llama_quantize.lazy import LazyTensor

        found, read = self._contents.packed[name], self._reader(name)
        size_bytes = sum(entry.size_bytes for entry in found.entries.values())
        compute = partial(dequantise, packing, read)
        dtype = compute(slice(0, 1)).dtype
        return LazyTensor(found.shape, dtype, max(1, size_bytes // found.shape[0]), compute)


def _require_packed(folder: Path, contents: Contents, method: Method, *, tied: bool) -> None:
    """Refuse weights that are not packed as the config says.

    Raises:
        CheckpointError: names every fault that was found.
    """
    problems = list(contents.problems)
    if tied and HEAD in contents.packed:
        message = f"config.json ties {HEAD} to {TABLE}, but the files hold a packed {HEAD}"
        raise unusable(folder, [message], "set tie_word_embeddings to false in config.json")
    if problems:
        raise unusable(folder, problems, _HINT)
    if not contents.packed and not method.may_be_floats:
        message = f"config.json says {method.label}, and no weight is packed so"
        raise unusable(folder, [message], _FLOATS_HINT)


def _packings(folder: Path, contents: Contents, method: Method) -> dict[str, Packing]:
    """Decide how each packed weight is read, and name all that contradict the config."""
    found: dict[str, Packing] = {}
    problems: list[str] = []
    for name, each in contents.packed.items():
        try:
            found[name] = method.packing(each)
        except CheckpointError as error:
            problems.append(error.message)
    if problems:
        raise unusable(folder, problems, _HINT)
    return found


def _activations_note(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{len(names)} scales of activations are not read: each target rounds these in its own way",
    )
