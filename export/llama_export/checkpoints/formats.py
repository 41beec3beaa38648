"""The formats of checkpoints that there are, and which one some files are in.

A new format is a file beside this one and its place in `FORMATS`. It knows nothing of what a
format's files hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import (
    AS_IT_IS,
    Checkpoint,
    Companions,
    Fault,
    Format,
    ReadOptions,
    WantedFiles,
)
from llama_export.checkpoints.companions import read_companions
from llama_export.checkpoints.dequantized import DequantizedCheckpoint
from llama_export.checkpoints.gguf.format import GgufFormat
from llama_export.checkpoints.gguf.head import HEAD_SUFFIX, FileElsewhere
from llama_export.checkpoints.gguf.head import make_head as make_gguf_head
from llama_export.checkpoints.gguf.wanted import picked_files
from llama_export.checkpoints.hugging_face import HuggingFaceFormat
from llama_export.checkpoints.lora import LoraCheckpoint, lay_over
from llama_export.checkpoints.lora_config import is_whole_adapter, wanted_of_adapter
from llama_export.checkpoints.lora_tensors import Adapter
from llama_export.checkpoints.meta import MetaFormat
from llama_export.checkpoints.packed.format import PackedFormat
from llama_export.checkpoints.pruned_head import PrunedHead, lay_head_over
from llama_export.checkpoints.quantized import QuantizedFormat
from llama_export.checkpoints.unrecognised import fault_of_folder, require_files
from llama_export.errors import CheckpointError, UsageError
from llama_export.tokenizer.files import TOKENIZER_FILES
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.tokenizer.tokenizer import Tokenizer

# The first that fits counts: quantised weights have a config.json too. What fits none is taken for
# the last, the most common one, whose reader says what is missing.
FORMATS: tuple[Format, ...] = (
    QuantizedFormat(),
    MetaFormat(),
    GgufFormat(),
    PackedFormat(),
    HuggingFaceFormat(),
)


# What of `ReadOptions` one format alone has a use for, and what it is for.
_OF_ONE_FORMAT: Mapping[str, tuple[type[Format], str]] = {
    "rope_factor": (MetaFormat, "Meta's layout, which does not record the factor"),
    "merge_adaptors": (MetaFormat, "side branches in Meta's layout"),
    "accept_loss": (GgufFormat, "GGUF, where weights may have lost more than int4 loses"),
}


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


def require_useful(path: Path, options: ReadOptions) -> None:
    """Refuse what a user asks for and a checkpoint's format has no use for.

    Raises:
        UsageError: an option is for another format.
    """
    found = find_format(path)
    for name, (form, purpose) in _OF_ONE_FORMAT.items():
        if isinstance(found, form) or getattr(options, name) == getattr(AS_IT_IS, name):
            continue
        option = f"--{name.replace('_', '-')}"
        message = f"{option} is for {purpose}; {shown_name(str(path), 300)} is another format"
        raise UsageError(message, f"leave {option} out")


def is_checkpoint(path: Path) -> bool:
    """Whether a folder or file is of any format."""
    return any(each.recognises(path) for each in FORMATS)


def wanted_files(files: Collection[str], picked: str = "") -> WantedFiles | Fault:
    """Choose what an export needs of a repository, or return why it cannot start from it.

    Of an adapter it is the adapter; its base is another repository.

    Args:
        files: paths in the repository, with `/`.
        picked: which of several models is meant; only in GGUF a repository has several.
    """
    if picked:
        return picked_files(files, picked)
    found = [each for form in FORMATS if (each := form.wanted(files)) is not None]
    whole = next((each for each in found if isinstance(each, WantedFiles)), None)
    return whole or wanted_of_adapter(files) or found[0]


def read_config(path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
    """Read the shape of a model, with the adapters that are laid over it.

    Raises:
        ConfigError, UnsupportedModelError: as `Format.read_config`.
        CheckpointError: an adapter is damaged, or made for another model.
    """
    config = find_format(path).read_config(path, options)
    return lay_over(config, _adapters(options), path)[0]


def read_tokenizer(path: Path, options: ReadOptions = AS_IT_IS) -> Tokenizer:
    """Load the tokenizer: the last one that an adapter brings, or the model's own.

    Raises:
        TokenizerError: as `Format.read_tokenizer`.
    """
    own = [folder for folder in map(Path, options.adapters) if _has_tokenizer(folder)]
    return load_tokenizer(own[-1]) if own else find_format(path).read_tokenizer(path)


def read_small_files(path: Path, options: ReadOptions = AS_IT_IS) -> Companions:
    """Read what a model says of itself; what an adapter with a tokenizer says counts before it.

    Raises:
        ConfigError, CheckpointError: as `Format.read_companions`.
    """
    found = find_format(path).read_companions(path)
    for folder in map(Path, options.adapters):
        if _has_tokenizer(folder):
            own = read_companions(folder)
            found = Companions(
                own.tokenizer_config or found.tokenizer_config,
                own.generation_config or found.generation_config,
                own.chat_templates or found.chat_templates,
            )
    return found


def open_checkpoint(
    path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
) -> Checkpoint:
    """Open a checkpoint of any format, and lay the adapters over it, as `Format.open` says.

    A config with `head_tokens` prunes the head; the texts of `options` were turned into these.
    """
    require_recognised(path)
    if config is None or not config.head_tokens:
        return _with_adapters(path, config, options)
    return lay_head_over(_with_adapters(path, None, options), config)


def reading_of(checkpoint: Checkpoint) -> ReadOptions:
    """Return which adapters lie over an opened checkpoint, for what is read of its folder."""
    if isinstance(checkpoint, PrunedHead):
        return reading_of(checkpoint.base)
    if not isinstance(checkpoint, LoraCheckpoint):
        return AS_IT_IS
    return ReadOptions(adapters=tuple(str(each.folder) for each in checkpoint.adapters))


def make_head(name: Path, file: FileElsewhere) -> bytes:
    """Read what a file of `WantedFiles.opened` says of its model, as a file of its own.

    Args:
        name: name for messages.
        file: the file, of which parts are read.

    Raises:
        CheckpointError: it is damaged, or not what its name says.
    """
    return make_gguf_head(name, file)


def head_place(path: Path) -> Path:
    """Return the place of a file's head, which says all of a model but its weights."""
    return path.with_name(f"{path.name}{HEAD_SUFFIX}")


def is_complete(path: Path) -> bool:
    """Whether a folder has all of a checkpoint's files, or all of an adapter's."""
    return is_whole_adapter(path) or find_format(path).is_complete(path)


def _with_adapters(path: Path, config: LlamaConfig | None, options: ReadOptions) -> Checkpoint:
    own_config = None if options.adapters else config  # it is of the model with the adapters
    opened = find_format(path).open(path, own_config, options)
    if options.requantize and opened.recipe is not None and opened.weights_folder is None:
        opened = DequantizedCheckpoint.of(opened)
    if not options.adapters:
        return opened
    return LoraCheckpoint.open(opened, _adapters(options), config)


def _adapters(options: ReadOptions) -> list[Adapter]:
    return [Adapter.open(Path(folder)) for folder in options.adapters]


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
