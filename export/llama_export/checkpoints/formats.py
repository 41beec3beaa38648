"""The formats of checkpoints that there are, and which one some files are in.

A new format is a file beside this one and its place in `FORMATS`. It knows nothing of what a
format's files hold.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import (
    AS_IT_IS,
    Checkpoint,
    Fault,
    Format,
    ReadOptions,
    WantedFiles,
)
from llama_export.checkpoints.hugging_face import HuggingFaceFormat
from llama_export.checkpoints.quantized import QuantizedFormat
from llama_export.checkpoints.unrecognised import fault_of_folder, require_files
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig

# The first that fits counts: quantised weights have a config.json too. What fits none is taken for
# the last, the most common one, whose reader says what is missing.
FORMATS: tuple[Format, ...] = (QuantizedFormat(), HuggingFaceFormat())


def find_format(path: Path) -> Format:
    """Return the format of a folder or file."""
    return next((each for each in FORMATS if each.recognises(path)), FORMATS[-1])


def require_recognised(path: Path) -> None:
    """Refuse what is known to be no checkpoint, by what it is instead.

    Raises:
        CheckpointError: no export can start from the folder; the message says what it holds.
    """
    require_files(path)
    if path.is_dir() and not is_checkpoint(path) and (fault := fault_of_folder(path)):
        message = f"{shown_name(str(path), 300)} {fault.text}"
        raise CheckpointError(message, fault.hint)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder or file is of any format."""
    return any(each.recognises(path) for each in FORMATS)


def wanted_files(files: Collection[str]) -> WantedFiles | Fault:
    """Choose what an export needs of a repository, or return why it cannot start from it.

    Args:
        files: paths in the repository, with `/`.
    """
    found = [each for form in FORMATS if (each := form.wanted(files)) is not None]
    return next((each for each in found if isinstance(each, WantedFiles)), found[0])


def open_checkpoint(
    path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
) -> Checkpoint:
    """Open a checkpoint of any format, as `Format.open` says."""
    require_recognised(path)
    return find_format(path).open(path, config, options)
