"""Hold what shards in Meta's layout hold against what params.json says, and name what is wrong.

It knows names, shapes and types, and the signs of other models; it reads no value but those that
every shard must have alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.meta_names import IGNORED, META_TABLE, MetaTensor
from llama_export.checkpoints.meta_shards import AGAIN, Shards, join
from llama_export.errors import CheckpointError, UnsupportedModelError
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from torch import dtype

FLOATS = ("bfloat16", "float16", "float32")
_MOST_PROBLEMS = 12
_LAYER = re.compile(r"layers\.(\d{1,6})\.")
# What the files of other models hold, by a part of a tensor's name.
_FOREIGN: Mapping[str, str] = {
    "vision_": "a model of text and images, such as Llama 3.2 11B",
    "text_model.": "a model of text and images, such as Llama 3.2 11B",
    ".experts": "a mixture of experts, such as Mixtral or Llama 4",
    "feed_forward.gate.": "a mixture of experts, such as Mixtral",
    "feed_forward.router": "a mixture of experts, such as Llama 4",
}


def require_names(shards: Shards) -> None:
    """Refuse files of other models and of other layouts by what they call their tensors.

    Raises:
        UnsupportedModelError: it is another kind of model.
        CheckpointError: its names are not Meta's.
    """
    names = shards.names()
    for name in names:
        kind = next((kind for part, kind in _FOREIGN.items() if part in name), None)
        if kind is not None:
            message = f"{shards.folder} holds {shown_name(name)}: it is {kind}"
            raise UnsupportedModelError(message, "Llama 1 to 3.2, text alone, can be exported")
    if META_TABLE in names:
        return
    found = ", ".join(shown_name(name) for name in names[:3])
    message = f"{shards.folder} holds no {META_TABLE}; its tensors are called {found}"
    hint = "name the checkpoint as it was before another program wrote it anew"
    if any(name.startswith("model.layers.") for name in names):
        hint = "these are Hugging Face's names: put their config.json beside pytorch_model.bin"
    raise CheckpointError(message, hint)


def require_shards(shards: Shards, tensor: MetaTensor) -> None:
    """Refuse too few or too many shards, by a tensor whose rows they split.

    Raises:
        CheckpointError: the rows of all shards are not those that params.json asks for.
    """
    parts = shards.parts(tensor.name)
    held = sum(len(part) for part in parts if part.ndim)
    each, expected = held // max(1, len(parts)), tensor.shape[0]
    if held in (0, expected) or each * len(parts) != held or expected % each:
        return
    message = (
        f"{shards.folder}: {len(parts)} shards hold {held} of the {expected} rows of "
        f"{tensor.name}; expected {expected // each} shards of that size"
    )
    raise CheckpointError(message, AGAIN)


def check_tensors(
    shards: Shards,
    tensors: Collection[MetaTensor],
    types: Callable[[str], Collection[str]],
    spare: Callable[[str], bool],
    layers: int,
) -> None:
    """Compare all that shards hold with what they must hold, and name every fault that is found.

    Args:
        shards: the opened shards.
        tensors: tensors that must be there.
        types: function that returns the types that a tensor may have, given its name.
        spare: function that returns whether a tensor of that name may be there as well.
        layers: number of layers that params.json says.

    Raises:
        CheckpointError: a tensor is missing, unexpected, or of the wrong shape or type.
    """
    problems = _layer_faults(shards, layers)
    for tensor in tensors:
        try:
            found = join(shards, tensor).parts[0].dtype
        except CheckpointError as error:
            problems.append(error.message)
            continue
        if type_name(found) not in types(tensor.name):
            expected = " or ".join(types(tensor.name))
            problems.append(f"{tensor.name} must be {expected}, found {type_name(found)}")
    known = {tensor.name for tensor in tensors}
    problems += [
        f"{shown_name(name)} is not part of this model"
        for name in shards.names()
        if not (name in known or IGNORED.fullmatch(name) or spare(name))
    ]
    raise_any(shards.folder, problems)


def type_name(found: dtype) -> str:
    """Return the name of a type of torch's, such as `bfloat16`."""
    return str(found).removeprefix("torch.")


def _layer_faults(shards: Shards, layers: int) -> list[str]:
    """Compare the number of layers, whose tensors would otherwise be named one by one."""
    found = len({match[1] for name in shards.names() if (match := _LAYER.match(name))})
    if found == layers:
        return []
    return [f"params.json says {layers} layers, and the files hold tensors of {found}"]


def raise_any(folder: Path, problems: list[str]) -> None:
    """Raise one error that names what is wrong; nothing, if nothing is.

    Raises:
        CheckpointError: there is a problem.
    """
    if not problems:
        return
    shown = problems[:_MOST_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    message = f"the checkpoint {folder} cannot be used:" + "".join(f"\n  {line}" for line in shown)
    raise CheckpointError(message, AGAIN)
