"""Read a Llama in GGUF, llama.cpp's format: config, tokenizer and weights in one file, or in parts.

Q8_0 is what our int8 in groups of 32 is, so its codes are kept. What has another grid is
dequantised row by row while it is read, and quantised again. It knows which door a tensor takes;
how headers, shapes, rows and tokens are read is in the files beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import (
    AS_IT_IS,
    Companions,
    Fault,
    ReadOptions,
    WantedFiles,
)
from llama_export.checkpoints.gguf.config import read_config
from llama_export.checkpoints.gguf.files import (
    has_all_parts,
    is_gguf_model,
    read_model,
)
from llama_export.checkpoints.gguf.names import llama_tensors
from llama_export.checkpoints.gguf.stored import StoredTensor
from llama_export.checkpoints.gguf.types import FLOATS, INT4_DB, INT4_FROM_FLOATS_DB, KEPT
from llama_export.checkpoints.gguf.wanted import wanted_files
from llama_export.checkpoints.model_tensors import ModelTensors
from llama_export.llama.config import LlamaConfig
from llama_quantize.recipe import QuantRecipe, recipe, with_rules_beside

if TYPE_CHECKING:
    from torch import Tensor

    from llama_export.checkpoints.gguf.tensors import MappedTensors
    from llama_export.tokenizer.tokenizer import Tokenizer
    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor

_KEPT_GROUP = 32


@dataclass(frozen=True)
class GgufCheckpoint(ModelTensors):
    """An open checkpoint whose every tensor was found to be what its metadata ask for.

    Args:
        folder: the file, or the folder that holds it.
        tensors: place and form of each tensor by Hugging Face's name, in model order.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Size of the tensors in the file."""
        return sum(each.size_bytes for each in self.tensors.values())

    @cached_property
    def recipe(self) -> QuantRecipe | None:
        """Int8 where the linears are Q8_0, whose codes are kept; None: all is read as floats."""
        forms = {self.tensors[name].type.name for name in self.tensors if _is_linear(name)}
        if KEPT not in forms or forms - {KEPT, *FLOATS}:
            return None
        return with_rules_beside(recipe("int8", _KEPT_GROUP), self.names)

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """That codes are kept, and what becomes of their scales."""
        if self.recipe is None:
            return ()
        note = "the Q8_0 codes of its linear layers are kept; their float16 scales are rounded to "
        return (f"{note}bfloat16",)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What happens to weights that are no floats, with figures."""
        forms = Counter(
            each.type.name
            for name, each in self.tensors.items()
            if len(each.shape) > 1 and not self._is_kept(name)
        )
        lossy = [form for form, _ in forms.most_common() if form not in (*FLOATS, KEPT)]
        notes = list(self.kept_notes)
        if lossy:
            figures = ", ".join(f"{INT4_DB[form]} dB from {form}" for form in lossy)
            notes.append(
                f"its weights are {' and '.join(lossy)}, which are dequantised, and quantised "
                f"again by the recipe: int4 then keeps about {figures} of signal to noise, and "
                f"{INT4_FROM_FLOATS_DB} dB from the original floats"
            )
        if KEPT in forms:
            notes.append("its tables are Q8_0 in groups; they get one scale a row")
        return tuple(notes)

    def tensor(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Read a tensor: codes that are kept, else floats that are computed row by row.

        Raises:
            CheckpointError: there is no tensor of that name, or the file was cut off.
            QuantizationError: a scale that would be kept cannot be one.
        """
        self.require(name, self.folder)
        read = self._mapped.kept if self._is_kept(name) else self._mapped.read
        return read(self.tensors[name], self._heads(name))

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the file again."""
        self._mapped.release()

    @cached_property
    def _mapped(self) -> MappedTensors:
        """The mapped files: torch comes with them, and a plan reads headers alone."""
        from llama_export.checkpoints.gguf.tensors import MappedTensors

        return MappedTensors()

    def _is_kept(self, name: str) -> bool:
        is_q8 = self.tensors[name].type.name == KEPT
        return is_q8 and _is_linear(name) and self.recipe is not None

    def _heads(self, name: str) -> int | None:
        """Return the number of heads whose rows are in Meta's order; None: no such rows."""
        if ".self_attn.q_proj." in name:
            return self.config.num_attention_heads
        return self.config.num_key_value_heads if ".self_attn.k_proj." in name else None


def _is_linear(name: str) -> bool:
    return name.endswith("_proj.weight")


class GgufFormat:
    """A file in GGUF, any part of a split one, or a folder that holds one model of this kind."""

    def wanted(self, files: Collection[str]) -> WantedFiles | Fault | None:
        """Choose the file of a repository that holds one model; several are a fault."""
        return wanted_files(files)

    def is_complete(self, path: Path) -> bool:
        """Whether all parts are there."""
        return self.recognises(path) and has_all_parts(path)

    def recognises(self, path: Path) -> bool:
        """Whether a file is one of GGUF, or a folder holds some and no other weights."""
        return is_gguf_model(path)

    def read_config(self, path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
        """Read the metadata, as `Format.read_config` says."""
        return read_config(read_model(path))

    def read_tokenizer(self, path: Path) -> Tokenizer:
        """Make the tokenizer of the metadata, as `Format.read_tokenizer` says."""
        from llama_export.checkpoints.gguf.tokenizer import read_tokenizer

        return read_tokenizer(read_model(path))

    def read_companions(self, path: Path) -> Companions:
        """Read chat templates and settings in the metadata, as `Format.read_companions` says."""
        from llama_export.checkpoints.gguf.companions import read_companions

        return read_companions(read_model(path))

    def tokenizer_bytes(self, path: Path) -> int:
        """Return the size of the tokenizer in a bundle, about, from the metadata's."""
        from llama_export.checkpoints.gguf.tokenizer import tokenizer_bytes

        return tokenizer_bytes(read_model(path))

    def open(
        self, path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
    ) -> GgufCheckpoint:
        """Read the headers, as `Format.open` says; the file is mapped when a tensor is read."""
        model = read_model(path)
        config = config or read_config(model)
        tensors = llama_tensors(model, config, accept_loss=options.accept_loss)
        shapes = {name: each.shape for name, each in tensors.items()}
        return GgufCheckpoint(config, shapes, path, tensors)
