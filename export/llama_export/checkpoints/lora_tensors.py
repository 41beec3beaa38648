"""The tensors of a LoRA adapter: which weight each of them changes, and how.

Names are peft's. It reads no value before a weight is merged, and knows a model only by the names
and shapes of its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.foreign_names import find_wrapping
from llama_export.checkpoints.hugging_face_files import WeightLayout
from llama_export.checkpoints.lora_config import ADAPTER_WEIGHTS, AdapterConfig
from llama_export.checkpoints.safetensors_header import TensorEntry
from llama_export.checkpoints.unrecognised import require_files
from llama_export.checkpoints.weight_files import WeightFiles
from llama_export.checkpoints.weight_names import FLOATS
from llama_export.errors import CheckpointError, UnsupportedModelError
from llama_export.llama.names import HEAD, TABLE
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
# What stands after a module's name, and what it is. peft's folders do not hold the adapter's own
# name; the state dict that a trainer gathers has it.
_PARTS = (
    (re.compile(r"\.lora_A(\.default)?\.weight"), "a"),
    (re.compile(r"\.lora_B(\.default)?\.weight"), "b"),
    (re.compile(r"\.lora_embedding_A(\.default)?"), "table_a"),
    (re.compile(r"\.lora_embedding_B(\.default)?"), "table_b"),
    (re.compile(r"\.lora_magnitude_vector(\.default)?(\.weight)?"), "magnitude"),
    (re.compile(r"\.modules_to_save(\.default)?\.(weight|bias)"), "saved"),
    (re.compile(r"\.original_module\.(weight|bias)"), "original"),
    (re.compile(r"(\.base_layer)?\.(weight|bias)"), "whole"),
)
_LABELS = {
    "a": "lora_A",
    "b": "lora_B",
    "table_a": "lora_embedding_A",
    "table_b": "lora_embedding_B",
}
_ENDS = [(re.compile(f"(.+?){end.pattern}"), part) for end, part in _PARTS]
_MOST_PROBLEMS = 8
_RENAME = "take that part out of every name in its weights, and save them again"
_RESAVE = "save the adapter again with save_pretrained of peft"
_MERGE = "merge it in peft (merge_and_unload), and name the folder of the merged model"


@dataclass(frozen=True)
class Update:
    """What an adapter does to one tensor.

    Args:
        files: files of the adapter.
        scale: factor of the low-rank product.
        parts: name in the files of each part: `a` and `b`, or `table_a` and `table_b`, and perhaps
            `magnitude`; or `whole`, which takes the tensor's place before the rest.
    """

    files: WeightFiles = field(repr=False)
    scale: float
    parts: Mapping[str, str]

    @property
    def replaces(self) -> bool:
        """Whether the adapter holds the whole tensor."""
        return "whole" in self.parts

    def whole(self) -> Tensor:
        """Map the tensor that takes the model's place."""
        return self.files.tensor(self.parts["whole"])

    def factors(self) -> Factors | None:
        """Read the low-rank product; None: there is none."""
        names = [self.parts.get(part) for part in ("a", "b", "table_a", "table_b", "magnitude")]
        a, b, table_a, table_b, magnitude = (
            None if name is None else self.files.tensor(name).float() for name in names
        )
        if table_a is not None and table_b is not None:
            return Factors(table_a.T, table_b.T, self.scale)
        return None if a is None or b is None else Factors(b, a, self.scale, magnitude)


@dataclass(frozen=True)
class Factors:
    """A product of low rank: `left [N, r] @ right [r, K]`, times `scale`, in float32."""

    left: Tensor
    right: Tensor
    scale: float
    magnitude: Tensor | None = None

    def merge(self, values: Tensor, rows: slice | Tensor) -> Tensor:
        """Return rows `[n, K]` of a weight with the update.

        Args:
            values: the rows without it, float32.
            rows: which rows they are.
        """
        import torch

        merged = values + (self.left[rows] @ self.right) * self.scale
        if self.magnitude is None:
            return merged
        # DoRA: the update turns a row, and its length is learned apart.
        lengths = torch.linalg.vector_norm(merged, dim=1)
        return torch.mul(merged, (self.magnitude[rows] / lengths).unsqueeze(1))


@dataclass(frozen=True)
class Adapter:
    """An opened adapter.

    Args:
        config: what its adapter_config.json says.
        updates: what it does to each tensor of a model, by the tensor's name.
    """

    config: AdapterConfig
    updates: Mapping[str, Update] = field(repr=False)
    _files: WeightFiles = field(repr=False)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.config.folder

    @classmethod
    def open(cls, folder: Path) -> Adapter:
        """Open the adapter in a folder.

        Raises:
            CheckpointError: a file is missing or damaged.
            UnsupportedModelError: it is no LoRA, or one that cannot be merged.
        """
        config = AdapterConfig.read(folder)
        name = next((name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
        if name is None:
            message = f"the adapter {folder} has no {' or '.join(ADAPTER_WEIGHTS)}"
            raise CheckpointError(message, "take it from where adapter_config.json came from")
        require_files(folder)
        files = WeightFiles.open(folder, WeightLayout(single=name))
        parts: dict[str, dict[str, str]] = {}
        for key in files.entries:
            tensor, part = _target(key, folder)
            held = parts.setdefault(tensor, {})
            if part in held:
                both = f"{shown_name(held[part])} and {shown_name(key)}"
                message = f"{folder / name} holds {both}, of which one is meant"
                raise CheckpointError(message, _RESAVE)
            held[part] = key
        if not parts:
            message = f"{folder / name} holds no tensor"
            raise CheckpointError(message, "take the adapter from another place")
        parts = {tensor: _trained(held, folder) for tensor, held in parts.items()}
        if config.ties and any(name in parts and len(parts[name]) > 1 for name in (TABLE, HEAD)):
            message = f"the adapter {folder} has a low-rank update of a table tied to the head"
            raise UnsupportedModelError(message, _MERGE)
        updates = {
            tensor: Update(files, config.scale(tensor.rpartition(".")[0]), found)
            for tensor, found in parts.items()
        }
        return cls(config, updates, files)

    def rows(self, name: str) -> int | None:
        """Return the number of rows of a tensor that the adapter holds whole; None: it does not."""
        update = self.updates.get(name)
        whole = None if update is None else update.parts.get("whole")
        return None if whole is None else self._files.entries[whole].shape[0]

    def fitted(self, shapes: Mapping[str, tuple[int, ...]], base: Path) -> Adapter:
        """Require the adapter to fit a model; biases that are zero and not the model's fall.

        Args:
            shapes: shape of each tensor of the model, of a head in any case.
            base: folder or file of the model.

        Raises:
            CheckpointError: it was made for another model; both are named.
        """
        harmless = [
            name
            for name, update in self.updates.items()
            if name not in shapes and name.endswith(".bias")
            if self._files.is_zero(update.parts["whole"])
        ]
        kept = {name: each for name, each in self.updates.items() if name not in harmless}
        problems = [
            line for name, each in kept.items() for line in self._misfits(name, each, shapes)
        ]
        strange = [name for name in kept if name not in shapes]
        if wrapped := find_wrapping([name for name in shapes if name not in kept], strange):
            message = (
                f"the adapter {self.folder} changes {shown_name(wrapped.example)} where the model "
                f"{base} has {wrapped.plain}: {wrapped.wrapping.maker}"
            )
            raise CheckpointError(message, f"{_RENAME}, if the model inside is this one")
        if problems:
            shown = problems[:_MOST_PROBLEMS]
            if len(problems) > len(shown):
                shown.append(f"and {len(problems) - len(shown)} more")
            trained = f" (it was trained on {shown_name(self.config.base, 200)})"
            message = (
                f"the adapter {self.folder}{trained if self.config.base else ''} does not fit the "
                f"model {base}:" + "".join(f"\n  {line}" for line in shown)
            )
            raise CheckpointError(message, "name the model that it was trained on, with --base")
        return replace(self, updates=kept)

    def release(self) -> None:
        """Return mapped pages to the system."""
        self._files.release()

    def _misfits(
        self, name: str, update: Update, shapes: Mapping[str, tuple[int, ...]]
    ) -> list[str]:
        if name not in shapes:
            keys = sorted(update.parts.values())
            return [f"the model has no {shown_name(name)}, which {shown_name(keys[0])} changes"]
        entries = {part: self._files.entries[key] for part, key in update.parts.items()}
        expected = _expected(name, shapes[name], entries, self.config)
        lacking = [part for part in expected if part not in entries]
        if lacking:
            there = ", ".join(map(shown_name, sorted(update.parts.values())))
            return [f"{there} has no {_LABELS[lacking[0]]} beside it"]
        return [
            f"{shown_name(update.parts[part])} must be {list(shape)}, found {list(entry.shape)}"
            if entry.shape != shape
            else f"{shown_name(update.parts[part])} is {shown_name(entry.dtype)}, not floats"
            for part, shape in expected.items()
            if (entry := entries[part]).shape != shape or entry.dtype not in FLOATS
        ]


def _expected(
    name: str,
    shape: tuple[int, ...],
    entries: Mapping[str, TensorEntry],
    config: AdapterConfig,
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the parts of an update must have."""
    expected = {}
    if "whole" in entries:
        # A table may have grown in the training; what is laid over it has grown with it.
        grown = entries["whole"].shape[:1] if name in (TABLE, HEAD) else ()
        shape = (*(grown or shape[:1]), *shape[1:])
        expected["whole"] = shape
    rank = config.rank(name.rpartition(".")[0])
    if len(shape) > 1 and entries.keys() & {"a", "b", "magnitude"}:
        expected |= {"a": (rank, shape[1]), "b": (shape[0], rank)}
    if len(shape) > 1 and entries.keys() & {"table_a", "table_b"}:
        expected |= {"table_a": (rank, shape[0]), "table_b": (shape[1], rank)}
    if "magnitude" in entries:
        expected["magnitude"] = shape[:1]
    return expected


def _trained(held: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the parts that count of all that an adapter holds for a tensor, as peft loads them.

    Where a table has grown, peft writes it up to three times: by its plain name, by that of the
    trained copy, which is the same, and as it was before the training.
    """
    parts = {part: key for part, key in held.items() if part not in ("saved", "original")}
    if "saved" in held:
        parts.setdefault("whole", held["saved"])
    if "original" in held and "whole" not in parts:
        message = (
            f"the adapter {folder} holds {shown_name(held['original'])}, a tensor as it was before "
            "the training, and not as it is after it"
        )
        raise CheckpointError(message, _RESAVE)
    return parts


def _target(key: str, folder: Path) -> tuple[str, str]:
    """Return the tensor that a part of an adapter changes, and what part it is."""
    for pattern, part in _ENDS:
        if key.startswith(_PREFIX) and (match := pattern.fullmatch(key[len(_PREFIX) :])):
            tensor = f"{match[1]}.bias" if key.endswith(".bias") else f"{match[1]}.weight"
            if part == "magnitude" and tensor == TABLE:
                break
            return tensor, part
    message = f"the adapter {folder} holds {shown_name(key)}, and how to merge that is not known"
    raise UnsupportedModelError(message, _MERGE)
