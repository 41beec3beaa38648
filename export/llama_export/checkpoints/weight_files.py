"""The tensors of a folder's weight files, by the names that they have there.

It finds the files as transformers does, reads what is in each of them, and lets an index decide
where one tensor is in two. It knows `.safetensors` and `.bin`, and no model: what the tensors
should be is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.hugging_face_files import (
    PICKLED,
    WeightLayout,
    missing_weights,
    read_index,
    weight_layout,
)
from llama_export.checkpoints.pickled import entries_of, load_pickled
from llama_export.checkpoints.safetensors_header import (
    TensorEntry,
    data_offset,
    read_header,
    read_metadata,
)
from llama_export.checkpoints.unrecognised import fault_of_folder, listing
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_MOST_PROBLEMS = 12
_PIECE_BYTES = 2**20
_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
_ARRAY_TYPES = {
    **{"U8": "<u1", "I8": "<i1", "I32": "<i4", "I64": "<i8"},
    **{"BF16": "<u2", "F16": "<f2", "F32": "<f4"},
}


@dataclass(frozen=True)
class WeightFiles:
    """What a folder's weight files hold.

    Args:
        folder: folder of the files.
        layout: which of its files are read.
        entries: type and shape of each tensor, by its name in the files.
    """

    folder: Path
    layout: WeightLayout
    entries: Mapping[str, TensorEntry] = field(repr=False)
    _files: Mapping[str, str] = field(repr=False)
    _readers: dict[str, Callable[[str], Tensor]] = field(repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the choice of files."""
        if self.layout.is_usual:
            return ()
        return (f"read from {shown_name(self.layout.single)}, the only .safetensors file there is",)

    @classmethod
    def open(cls, folder: Path, layout: WeightLayout | None = None) -> WeightFiles:
        """Find the files of a folder and read what is in them, but no value.

        Args:
            folder: folder of the files.
            layout: the files that hold the weights; None: those that transformers would read.

        Raises:
            CheckpointError: there are none, or some are missing or damaged; all that are are named.
        """
        names = listing(folder)
        layout = layout or weight_layout(names)
        if layout is None:
            fault = missing_weights(names, fault_of_folder(folder))
            message = f"{folder} {fault.text}"
            raise CheckpointError(message, fault.hint)
        index = read_index(folder / layout.index) if layout.index else {}
        found = _Found({}, {}, {})
        problems, hint = [], ""
        placed: dict[str, set[str]] = {} if index else {layout.single: set()}
        for tensor, file in index.items():
            placed.setdefault(file, set()).add(tensor)
        for wanted in sorted(placed):
            name = _spelt(wanted, names)
            if not (folder / name).is_file():
                problems.append(f"{shown_name(name)} is missing, and {layout.index} names it")
                hint = hint or "download the missing files"
                continue
            try:
                found.add(folder, name, placed[wanted])
            except CheckpointError as error:
                problems.append(error.message)
                hint = error.hint or hint
        # What the damaged files hold is unknown: a list of all their tensors would bury the cause.
        if problems:
            raise unusable(folder, problems, hint or "download the files again")
        return cls(folder, layout, found.entries, found.files, found.readers)

    def tensor(self, name: str) -> Tensor:
        """Map a tensor by its name in the files; its memory is the file's.

        Raises:
            CheckpointError: the file is damaged.
        """
        file = self._files[name]
        if file not in self._readers:
            self._readers[file] = _map(self.folder / file)
        return self._readers[file](name)

    def array(self, name: str) -> NDArray[np.generic]:
        """Read a tensor of integers by its name in the files, without torch; bfloat16 as its bits.

        Raises:
            CheckpointError: it is of another type, or the file is damaged.
        """
        import numpy as np

        file, entry = self._files[name], self.entries[name]
        if file.endswith(PICKLED):
            found: NDArray[np.generic] = self.tensor(name).numpy()
            return found
        if entry.dtype not in _ARRAY_TYPES:
            message = f"{shown_name(name)} is {shown_name(entry.dtype)}, which is not looked into"
            raise CheckpointError(message)
        with (self.folder / file).open("rb") as content:
            content.seek(data_offset(content) + entry.start)
            data = content.read(entry.size_bytes)
        return np.frombuffer(data, _ARRAY_TYPES[entry.dtype]).reshape(entry.shape)

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The strings in the headers of the files.

        Raises:
            CheckpointError: those of a file are none.
        """
        found: dict[str, str] = {}
        for file in sorted({each for each in self._files.values() if not each.endswith(PICKLED)}):
            found |= read_metadata(self.folder / file)
        return found

    def is_zero(self, name: str) -> bool:
        """Whether every value of a tensor is zero, of either sign; torch is not needed for it."""
        file, entry = self._files[name], self.entries[name]
        if file.endswith(PICKLED):
            return not bool(self.tensor(name).any())
        path = self.folder / file
        with path.open("rb") as content:
            content.seek(data_offset(content) + entry.start)
            left = entry.size_bytes
            while left:
                piece = content.read(min(left, _PIECE_BYTES))
                if not piece or not _are_zeros(piece, _ITEM_BYTES.get(entry.dtype, 1)):
                    return False
                left -= len(piece)
        return True

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._readers.clear()


@dataclass(frozen=True)
class _Found:
    entries: dict[str, TensorEntry]
    files: dict[str, str]
    readers: dict[str, Callable[[str], Tensor]]

    def add(self, folder: Path, name: str, put_here: set[str]) -> None:
        """Take over the tensors of a file, but none of an earlier one unless the index says so."""
        header = self._read(folder / name)
        for tensor, entry in header.items():
            if tensor not in self.files or tensor in put_here:
                self.entries[tensor], self.files[tensor] = entry, name

    def _read(self, path: Path) -> dict[str, TensorEntry]:
        if not path.name.endswith(PICKLED):
            return read_header(path)
        tensors = load_pickled(path)
        self.readers[path.name] = tensors.__getitem__
        return entries_of(tensors)


def unusable(folder: Path, problems: Sequence[str], hint: str) -> CheckpointError:
    """Return an error that lists what is wrong with a checkpoint, cut where nobody reads on."""
    shown = list(problems[:_MOST_PROBLEMS])
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    message = f"the checkpoint {folder} cannot be used:" + "".join(f"\n  {line}" for line in shown)
    return CheckpointError(message, hint)


def _are_zeros(piece: bytes, item_bytes: int) -> bool:
    """Whether some numbers are all zero; the sign is the highest bit of their last byte."""
    if not piece.strip(b"\0"):
        return True
    signs = piece[item_bytes - 1 :: item_bytes]
    rest = len(piece) - len(signs)
    zeros = piece.count(0) - signs.count(0)
    return item_bytes > 1 and zeros == rest and not signs.strip(b"\0\x80")


def _spelt(wanted: str, names: Sequence[str]) -> str:
    """Return a file's name as the folder spells it, where an index has other capitals."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.casefold() == wanted.casefold()]
    return alike[0] if len(alike) == 1 else wanted


def _map(path: Path) -> Callable[[str], Tensor]:
    if path.name.endswith(PICKLED):
        return load_pickled(path).__getitem__
    from safetensors import SafetensorError, safe_open

    try:
        reader: Callable[[str], Tensor] = safe_open(path, framework="pt").get_tensor
    except (SafetensorError, OSError) as error:
        message = f"{path} cannot be mapped: {error}"
        raise CheckpointError(message, "download the file again") from None
    return reader
