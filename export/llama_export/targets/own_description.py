"""What an artifact says about itself, read from its own bytes, to be held against its manifest.

It knows signatures and pairs of values; it knows no target and judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llama_export.bundle.graph_spec import GraphSpec, TensorSpec


@dataclass(frozen=True)
class Said:
    """Something that an artifact tells its clients.

    Args:
        key: the artifact's own name of it.
        expected: what the rest of the bundle makes it; None: it should say nothing.
        found: what it says; None: nothing.
    """

    key: str
    expected: object
    found: object


@dataclass(frozen=True)
class OwnDescription:
    """An artifact as its bytes describe it.

    Args:
        signature: the artifact's own signature. Where its bytes leave open what a dimension is
            called, or what an input is, the manifest's word is kept.
        said: what it tells its clients beyond that.
    """

    signature: GraphSpec
    said: tuple[Said, ...] = ()


@dataclass(frozen=True)
class ClientSettings:
    """What the stock clients of a target read beside the artifact.

    Args:
        config_keys: keys of config.json beyond the model's.
        files: keys of further JSON files, by the file's name.
    """

    config_keys: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def kept_names(
    own: TensorSpec, recorded: Sequence[TensorSpec], index: int, *, single: bool = False
) -> TensorSpec:
    """Return a tensor whose bytes name neither it nor its dimensions, in the manifest's words.

    Args:
        own: tensor as it is; a text stands for a dimension that varies.
        recorded: the manifest's tensors.
        index: place of the tensor among them.
        single: whether the context is one position, so that what could vary is one.
    """
    if index >= len(recorded):
        return own
    named = recorded[index]
    if len(named.shape) != len(own.shape):
        return replace(own, name=own.name or named.name)
    shape = tuple(
        wanted
        if isinstance(wanted, str) and (isinstance(size, str) or (single and size == 1))
        else size
        for size, wanted in zip(own.shape, named.shape, strict=True)
    )
    return TensorSpec(own.name or named.name, own.dtype, shape)


def write_settings(folder: Path, settings: ClientSettings) -> None:
    """Write the files of a target's stock clients."""
    for name, keys in settings.files.items():
        (folder / name).write_text(json.dumps(keys, indent=2) + "\n", encoding="utf-8")
