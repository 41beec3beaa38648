"""The files of a model in GGUF: which of a folder are meant, and parts put together.

llama.cpp splits a model as `NAME-00001-of-00003.gguf`; the first part has the metadata, and each
has some of the tensors. It knows names and headers; what the metadata means is not its business.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_export.checkpoints.gguf.head import is_head, read_head
from llama_export.checkpoints.gguf.header import GgufHeader, is_gguf, read_header
from llama_export.checkpoints.gguf.stored import StoredTensor, Value
from llama_export.checkpoints.hugging_face_files import INDEX_FILE, SINGLE_FILE
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

SUFFIX = ".gguf"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf(?:\.head)?)", re.DOTALL)
# Beside a model may lie the image encoder of another program, and statistics of a quantiser.
_OTHERS = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_MOST_PARTS = 1000
_MOST_SHOWN = 12
SPLIT_NUMBER, SPLIT_COUNT, SPLIT_TENSORS = "split.no", "split.count", "split.tensors.count"


@dataclass(frozen=True)
class GgufModel:
    """A model's metadata and tensors, whatever number of files they are in.

    Args:
        path: the file, or the first of them.
        metadata: values by key, of the first file.
        tensors: tensors of all files by name.
    """

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, StoredTensor]


def models_among(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Find the models among some files' names.

    Returns:
        The files of each model, all parts that its names speak of, by the name of the first.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(names):
        if name.lower().endswith(SUFFIX) and not _OTHERS.search(name.rpartition("/")[2]):
            parts = part_names(name)
            found[parts[0]] = parts
    return found


def part_names(name: str) -> tuple[str, ...]:
    """Return the names of all parts of the model that a file is one of; of a whole one, its own."""
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match[3]) <= _MOST_PARTS:
        return (name,)
    count = int(match[3])
    return tuple(f"{match[1]}-{index:05d}-of-{match[3]}{match[4]}" for index in range(1, count + 1))


def model_stem(name: str) -> str:
    """Return the name of a model whose file, or a part of it, has some name."""
    match = _PART.fullmatch(name)
    return match[1] if match else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def model_file(path: Path) -> Path:
    """Find the model that a file, or a folder with one model, stands for.

    Raises:
        CheckpointError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    found = models_among(file_names(path))
    if len(found) == 1:
        return path / next(iter(found))
    names = ", ".join(map(shown_name, list(found)[:_MOST_SHOWN])) or "no GGUF file"
    message = f"{path} holds {len(found)} models in GGUF, and one is meant: {names}"
    raise CheckpointError(message, f"name the file: --model {path / 'NAME.gguf'}")


def file_names(folder: Path) -> list[str]:
    """List the files of a folder; none of one that cannot be read."""
    try:
        return [path.name for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def read_model(path: Path) -> GgufModel:
    """Read the headers of a model's files.

    Args:
        path: the file, any part of it, or a folder that holds one model.

    Raises:
        CheckpointError: a part is missing or not what its name says, or a header is damaged.
    """
    file = model_file(path)
    files = [file.with_name(name) for name in part_names(file.name)]
    missing = [each.name for each in files if not each.exists()]
    if missing:
        names = ", ".join(map(shown_name, missing[:_MOST_SHOWN]))
        message = f"{file.parent} lacks {len(missing)} of the {len(files)} parts: {names}"
        raise CheckpointError(message, "put all parts into one folder")
    headers = [read_head(each) if is_head(each) else read_header(each) for each in files]
    _check_parts(headers)
    first = headers[0]
    return GgufModel(first.path, first.metadata, _tensors_of(headers))


def is_gguf_model(path: Path) -> bool:
    """Whether a file is one of GGUF, by its first bytes, or a folder holds some."""
    if path.is_dir():
        names = file_names(path)
        return bool(models_among(names)) and not has_other_weights(names)
    return path.is_file() and is_gguf(path)


def has_all_parts(path: Path) -> bool:
    """Whether each part of the model that a file or folder stands for is there."""
    try:
        file = model_file(path)
    except CheckpointError:
        return False
    return all(file.with_name(name).is_file() for name in part_names(file.name))


def has_other_weights(names: Collection[str]) -> bool:
    """Whether the model is there in Hugging Face's form as well, which holds all of it."""
    return SINGLE_FILE in names or INDEX_FILE in names


def _check_parts(headers: Sequence[GgufHeader]) -> None:
    """Require each file to say that it is the part that its name says."""
    for index, header in enumerate(headers):
        count = header.metadata.get(SPLIT_COUNT, 1)
        number = header.metadata.get(SPLIT_NUMBER, 0)
        # An unsplit file may say so, or that it is the first of none.
        if (count or 1, number) != (len(headers), index):
            message = (
                f"{header.path} says that it is part {shown_name(repr(number))} of "
                f"{shown_name(repr(count))}, counted from 0; by its name it is part {index} of "
                f"{len(headers)}"
            )
            hint = "give the parts the names that llama.cpp gave them: NAME-00001-of-00003.gguf"
            raise CheckpointError(message, hint)


def _tensors_of(headers: Sequence[GgufHeader]) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for header in headers:
        for name in header.tensors.keys() & found.keys():
            message = f"{header.path}: {shown_name(name)} is in {found[name].path.name} too"
            raise CheckpointError(message, "download the parts again")
        found |= header.tensors
    expected = headers[0].metadata.get(SPLIT_TENSORS, len(found))
    if len(headers) > 1 and expected != len(found):
        message = f"{headers[0].path} speaks of {expected} tensors, and its parts hold {len(found)}"
        raise CheckpointError(message, "download the parts again")
    return found
