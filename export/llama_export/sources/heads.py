"""Fetch the heads of a model's files: what it says of itself, where the weights' own files say it.

A head lies in the cache beside the place of its file, and is taken for it until that is there.
What it says is judged before gigabytes come, and read again from the file, whose checksum proves
it. The formats know what a head is; this module asks for the parts of files that they want.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llama_export.checkpoints.formats import head_place, make_head
from llama_export.sources.answers import understood
from llama_export.sources.blobs import Blobs
from llama_export.sources.download import RemoteFile, read_part
from llama_export.sources.hub import Repository

_HEAD = ".llama-export.head"


@dataclass(frozen=True)
class _FileOnHub:
    """A file of a repository, of which parts are read; see `FileElsewhere`."""

    repository: Repository
    file: RemoteFile

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes

    def read(self, start: int, size_bytes: int) -> bytes:
        with understood(self.repository):
            return read_part(self.file, start, size_bytes, self.repository.headers)


def fetch_heads(
    repository: Repository, blobs: Blobs, files: Iterable[RemoteFile], commit: str
) -> None:
    """Put the head of each file into the cache, and beside the file's place in a commit's folder.

    Raises:
        CheckpointError: a file cannot be what its name says.
        HubError: a part of it could not be read.
        huggingface_hub.errors.HfHubHTTPError: the hub refused.
        OSError: the cache cannot be written.
    """
    for file in files:
        checksum = f"{file.checksum}{_HEAD}"
        blob = blobs.blob(checksum)
        if not blob.is_file():
            name = Path(repository.hub_id) / file.name
            content = make_head(name, _FileOnHub(repository, file))
            _write(blob, content)
        name_of_head = head_place(Path(file.name)).as_posix()
        blobs.link(replace(file, name=name_of_head, checksum=checksum), commit)


def missing_bytes(blobs: Blobs, files: Sequence[RemoteFile]) -> int:
    """Return how much of some files a download would bring."""
    return sum(file.size_bytes for file in files if not blobs.blob(file.checksum).is_file())


def _write(blob: Path, content: bytes) -> None:
    fresh = blob.with_name(f"{blob.name}.{os.getpid()}")
    blob.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_bytes(content)
    fresh.replace(blob)
