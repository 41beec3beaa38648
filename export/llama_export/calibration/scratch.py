"""A folder for what a calibration cannot hold in memory, and for what it may go on from.

Arrays are files that are mapped, which the system writes back when memory is short. After each
layer its codes are put beside them, and then, in one step, a small file that names the next layer:
what an interrupted run leaves is whole up to there. Another model, text, method or machine has
another key, and starts over; so does a folder in which a file is missing or of another size. It
knows no model and no method.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from llama_quantize.checkpoint.weights_file import map_file, mapped_tensor
from llama_quantize.scheme import GroupedInt
from llama_quantize.strict_json import JsonFault, read_object
from llama_quantize.tensor import QuantizedTensor

_STATE = "state.json"


class Scratch:
    """The folder of one calibration.

    Args:
        folder: place of it; made if absent. What lies there under another key is removed.
        key: hash of all that decides what is computed.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._key = key
        self.layer, self.counts = self._reached()
        if self.layer == 0 and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def array(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Map a float32 array of the folder; zeros where it is new.

        Raises:
            OSError: the disk is full.
        """
        size = math.prod(shape)
        path = self._path(name)
        _reserve(path, size * torch.float32.itemsize)
        mapped = torch.from_file(str(path), shared=True, size=size, dtype=torch.float32)
        return mapped.view(shape)

    def drop(self, name: str) -> None:
        """Remove an array that nobody will map again."""
        with suppress(OSError):  # it goes with the folder
            self._path(name).unlink()

    def finish(
        self, layer: int, made: Mapping[str, QuantizedTensor], counts: Mapping[str, int]
    ) -> None:
        """Note that a layer is done, and what became of its weights.

        Args:
            layer: number of the layer, from 0.
            made: codes and scales by the weight's name.
            counts: numbers that a later run counts on from.
        """
        tensors = {
            f"{name}.{part}": getattr(tensor, part).contiguous()
            for name, tensor in made.items()
            for part in ("codes", "scales")
        }
        save_file(tensors, self._codes(layer))
        self.layer, self.counts = layer + 1, dict(counts)
        found = {
            "key": self._key,
            "layer": self.layer,
            "counts": self.counts,
            "sizes": self._sizes(),
        }
        state = self.folder / f"{_STATE}.new"
        state.write_text(json.dumps(found))
        state.replace(self.folder / _STATE)

    def made(self, layer: int, name: str, scheme: GroupedInt) -> QuantizedTensor:
        """Return what an interrupted run made of a weight of a layer that is done."""
        found = mapped_tensor(map_file(self._codes(layer)), name, scheme)
        if not isinstance(found, QuantizedTensor):
            message = f"{name} has no codes"
            raise TypeError(message)
        return found

    def _codes(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:03}.safetensors"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.f32"

    def _sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of the folder's files, but for the one that has them."""
        return {
            path.name: path.stat().st_size
            for path in self.folder.iterdir()
            if not path.name.startswith(_STATE)
        }

    def _reached(self) -> tuple[int, dict[str, int]]:
        """Return the layer that an interrupted run of this key was about to begin, and its counts.

        The files must be those that it left: one that is too short would be mapped with zeros.
        """
        try:
            state = read_object(self.folder / _STATE)
            sizes = self._sizes()
        except (OSError, JsonFault):
            return 0, {}
        match state:
            case {"key": self._key, "layer": int(layer), "counts": {**counts}, "sizes": expected}:
                # What was begun since stands beside them.
                if isinstance(expected, dict) and expected.items() <= sizes.items():
                    return layer, {f"{k}": n for k, n in counts.items() if isinstance(n, int)}
        return 0, {}


def noted_layer(folder: Path) -> int:
    """Return the layer that an interrupted run was about to begin; 0: none is done."""
    try:
        layer = read_object(folder / _STATE).get("layer")
    except (OSError, JsonFault):
        return 0
    return layer if isinstance(layer, int) else 0


def _reserve(path: Path, size_bytes: int) -> None:
    """Take room for a file: a mapped one that the disk cannot hold would end the process.

    Raises:
        OSError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, max(1, size_bytes))
    finally:
        os.close(descriptor)
