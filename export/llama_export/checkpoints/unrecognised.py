"""What a folder, a repository or a file is, when no export can start from it.

The rows are data: a pattern of names, what that is, and what to do. Of a file the first bytes are
read as well, because a name may lie; nothing is opened, unpacked or run.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_export.checkpoints.checkpoint import Fault
from llama_export.checkpoints.hugging_face_files import (
    CONFIG_FILE,
    PICKLED_FILE,
    has_all_weights,
    is_small_file,
    read_index,
    weight_layout,
)
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

ADAPTER_FILE = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_POINTER_BYTES = 1024
_MOST = 4
_MOST_PATH = 300
_MOST_LISTED = 10_000
_TRAINED = re.compile(r"checkpoint-(\d{1,12})/")
_HEAD_BYTES = 512


@dataclass(frozen=True)
class _Row:
    """Names that tell what something is, as a phrase, and what to do then."""

    patterns: tuple[str, ...]
    what: str
    hint: str


_ORIGINAL = "name the checkpoint that it was made from"
_SAVE = "save the whole model with save_pretrained in transformers, and name that folder"
_ROWS = (
    _Row(
        _ADAPTER_WEIGHTS,
        f"an adapter without the {ADAPTER_FILE} that says how it is applied",
        f"take {ADAPTER_FILE} from the same place",
    ),
    _Row(
        ("*.distcp", "pytorch_model_fsdp*/"),
        "shards of an FSDP training",
        f"merge them with accelerate merge-weights or torch.distributed.checkpoint; then {_SAVE}",
    ),
    _Row(
        ("global_step*/", "zero_to_fp32.py", "mp_rank_*_model_states.pt", "*_optim_states.pt"),
        "shards of a DeepSpeed training",
        f"merge them with zero_to_fp32.py, which DeepSpeed put there; then {_SAVE}",
    ),
    _Row(
        ("hf_model_*.pt", "meta_model_*.pt", "recipe_state.pt", "recipe_state/"),
        "an older output of torchtune",
        "let torchtune's checkpointer for Hugging Face write .safetensors, and name that folder",
    ),
    _Row(("lit_model.pth",), "a checkpoint of LitGPT", f"convert it back; or {_SAVE}"),
    _Row(("*.ckpt",), "a trainer's state, with more in it than the model", _SAVE),
    _Row(("tf_model*.h5", "saved_model.pb"), "weights for TensorFlow", _SAVE),
    _Row(("flax_model*.msgpack",), "weights for Flax", _SAVE),
    _Row(("rust_model.ot",), "weights for Rust", _SAVE),
    _Row(("weights*.npz",), "weights for MLX", _ORIGINAL),
    _Row(("genai_config.json", "*.onnx", "*.onnx_data"), "an ONNX model", _ORIGINAL),
    _Row(("*.pte",), "an ExecuTorch program", _ORIGINAL),
    _Row(
        ("*.mlpackage/", "*.mlmodelc/", "*.mlmodel", "Manifest.json"),
        "a Core ML model",
        _ORIGINAL,
    ),
    _Row(
        ("*.tflite", "*.task", "*.litertlm", "openvino_model.*", "*.engine", "*.plan"),
        "a model that was compiled for another runtime",
        _ORIGINAL,
    ),
    _Row(
        ("mlc-chat-config.json", "params_shard_*.bin"),
        "a model that was compiled for MLC",
        _ORIGINAL,
    ),
    _Row(
        ("ggml-*.bin", "*.ggml"),
        "weights in a form of llama.cpp that is older than GGUF",
        "take the model's .safetensors or .gguf files",
    ),
    _Row(
        ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z", "*.rar", "*.gz", "*.zst"),
        "an archive",
        "unpack it, and name the folder that was in it",
    ),
    _Row(
        ("pytorch_model_fsdp.bin",),
        "the whole model under the name that accelerate gives it",
        f"rename it to {PICKLED_FILE}",
    ),
    _Row(
        ("optimizer.*", "scheduler.pt", "rng_state*.pth", "trainer_state.json"),
        "a trainer's state, without the model that it trained",
        f"name a folder that holds the model too; or {_SAVE}",
    ),
    _Row(
        ("*.bin", "*.pt", "*.pth"),
        "pickled tensors under a name that says nothing of their layout",
        f"take the model's .safetensors files; or {_SAVE}",
    ),
)
_BUNDLE_HINT = f"{_ORIGINAL}, or the folder weights/ beside it"
_CACHE_HINT = "name the model by its hub id, or the commit's folder inside snapshots/"
_PULL = "run git lfs install and git lfs pull in the clone, or name the model by its hub id"
_FOLDER_HINT = "name the folder that it lies in"
_SUFFIXES = {
    ".safetensors": ("is a file of weights alone", _FOLDER_HINT),
    ".json": ("is one file of a checkpoint", _FOLDER_HINT),
    ".gguf": ("is no GGUF file, whatever its name says", "download the file again"),
}
# First bytes, where they stand, and a name that such a file could have.
_HEADS = (
    (b"PK\x03\x04", 0, ".zip"),
    (b"\x1f\x8b", 0, ".gz"),
    (b"7z\xbc\xaf", 0, ".7z"),
    (b"\x28\xb5\x2f\xfd", 0, ".zst"),
    (b"ustar", 257, ".tar"),
    (b"ET12", 4, ".pte"),
    (b"\x89HDF", 0, "tf_model.h5"),
)
_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def fault_of_names(names: Collection[str]) -> Fault | None:
    """Explain what some files are that hold no weights for an export; None: nothing known.

    Args:
        names: names in the folder or repository; a folder's ends with `/`.
    """
    top = sorted({first + slash for first, slash, _ in (name.partition("/") for name in names)})
    if trained := _by_step(top):
        text = f"is a trainer's output, with checkpoints inside it: {_listed(trained)}"
        return Fault(text, f"name one of them, such as the newest, {trained[-1]}")
    if "manifest.json" in top:
        return Fault("is a bundle that llama-export wrote, not a checkpoint", _BUNDLE_HINT)
    if "snapshots/" in top:
        return Fault("is a folder of the hub's cache, with one for each commit in it", _CACHE_HINT)
    found = _row_of(top)
    return found and Fault(f"holds {found[0].what} ({shown_name(found[1])})", found[0].hint)


def fault_of_folder(folder: Path) -> Fault | None:
    """Explain what a folder is from which no export can start; None: nothing known.

    Raises:
        CheckpointError: it cannot be read.
    """
    names = listing(folder)
    if not names:
        return Fault("is empty", "name a folder that holds a checkpoint")
    fault = fault_of_names(names)
    whole = [name for name in names if name.endswith("/") and _is_whole(folder / name)]
    if trained := _by_step(whole):
        newest = shown_name(str(folder / trained[-1]), _MOST_PATH)
        text = fault.text if fault else ""
        return Fault(text, f"name one of them; the newest that is complete is {newest}")
    if fault is None and whole:
        places = ", ".join(shown_name(str(folder / name), _MOST_PATH) for name in whole[:_MOST])
        return Fault("holds no checkpoint itself, but there is one inside it", f"name {places}")
    return fault


def fault_of_file(path: Path) -> Fault | None:
    """Explain what a file is from which no export can start; None: nothing known."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if head.startswith(_POINTER):
        return Fault("is a git-lfs pointer in place of the file", _PULL)
    if text_and_hint := _SUFFIXES.get(path.suffix.lower()):
        return Fault(*text_and_hint)
    names = [path.name, *(name for start, at, name in _HEADS if head[at:].startswith(start))]
    if path.suffix.lower() in _TORCH_SUFFIXES:
        names = names[:1]  # torch.save writes archives
    found = _row_of(names)
    return found and Fault(f"is no checkpoint, but {found[0].what}", found[0].hint)


def require_files(path: Path) -> None:
    """Refuse a checkpoint whose files are pointers that git left in their places.

    Others than those that an export reads may be, such as weights in a form that is not used.

    Raises:
        CheckpointError: some are; they are named.
    """
    if not path.is_dir():
        return
    names = listing(path)
    pointers = [name for name in names if _is_pointer(path / name)]
    if pointers := _read_among(pointers, path, names):
        message = f"{path} holds git-lfs pointers in place of files: {_listed(pointers)}"
        raise CheckpointError(message, _PULL)


def listing(folder: Path) -> list[str]:
    """List what lies in a folder; folders end with `/`, and links count as what they lead to.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return sorted(
            f"{path.name}/" if path.is_dir() else path.name
            for _, path in zip(range(_MOST_LISTED), folder.iterdir(), strict=False)
        )
    except OSError as error:
        message = f"the checkpoint folder {folder} cannot be read: {error.strerror or error}"
        raise CheckpointError(message, "check its permissions and its disk") from None


def _read_among(pointers: list[str], folder: Path, names: Collection[str]) -> list[str]:
    """Return which of a folder's pointers stand for files that an export would read."""
    layout = weight_layout(names)
    read = {ADAPTER_FILE, *_ADAPTER_WEIGHTS} if ADAPTER_FILE in names else set()
    if layout is not None and CONFIG_FILE in names:
        read |= {layout.single, layout.index}
        if layout.index and layout.index not in pointers:
            read |= set(read_index(folder / layout.index).values())
    if not read:
        return pointers
    return [name for name in pointers if name in read or is_small_file(name)]


def _by_step(names: Collection[str]) -> list[str]:
    """Return the folders that a trainer saved, the newest last."""
    steps = {int(match[1]): name for name in names if (match := _TRAINED.fullmatch(name))}
    return [steps[number] for number in sorted(steps)]


def _row_of(names: Collection[str]) -> tuple[_Row, str] | None:
    for row in _ROWS:
        for name in names:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in row.patterns):
                return row, name
    return None


def _is_whole(folder: Path) -> bool:
    """Whether a folder inside another one could be exported, as far as its names say."""
    if (folder / ADAPTER_FILE).is_file():
        return True
    return (folder / CONFIG_FILE).is_file() and has_all_weights(folder)


def _is_pointer(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_POINTER_BYTES:
            return False
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(map(shown_name, names[:_MOST])) + more
