"""Gather the tokens that a calibrated method looks at: windows of the model's own text.

It brings together what the files beside it make; it knows no method.

Shapes: B windows, S tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llama_export.calibration.options import CalibrationOptions
from llama_export.calibration.own_text import Order, OwnWriter
from llama_export.calibration.scripts import DialogForm
from llama_export.calibration.stepwise import mapped_floats, quick_dtype
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.chat.find_turns import find_turns

_WINDOW = 512


@dataclass(frozen=True, eq=False)
class CalibrationWindows:
    """The tokens of a calibration.

    Args:
        ids: int64 `[B, S]`; any first part of them is as fair a mix as all.
        origin: what they were made of, and what decided that.
    """

    ids: Tensor
    origin: Mapping[str, str]


def gather_windows(
    checkpoint: Checkpoint,
    form: ChatFormat,
    options: CalibrationOptions,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CalibrationWindows:
    """Gather the windows of a calibration.

    Args:
        checkpoint: model of floats, whose config names every token that ends a text.
        form: how its dialogs are written, with its tokenizer.
        options: what the user wants.
        scratch: folder in which a copy of the weights may be written meanwhile.
        progress: called with the tokens that are there, and with their number in the end.

    Raises:
        CheckpointError: the model's logits are not finite.
        OSError: the disk is full.
    """
    config = checkpoint.config
    window = min(_WINDOW, config.longest_context)
    count = max(1, options.tokens // window)
    found = find_turns(form)
    dialogs = None if found.turns is None else DialogForm.of(form.tokenizer, found.turns)
    orders = [Order(at, is_dialog=dialogs is not None and at % 2 == 1) for at in range(count)]
    done = 0

    def advance(tokens: int) -> None:
        nonlocal done
        done += tokens
        progress(done, count * window)

    dtype = quick_dtype()
    with mapped_floats(checkpoint, dtype, scratch) as weights:
        writer = OwnWriter(config, weights, form.tokenizer, dialogs, options.seed)
        ids = writer.write(orders, window, advance)
    origin = {
        "tokens": str(ids.numel()),
        "window": str(window),
        "seed": str(options.seed),
        "ids_sha256": ids_sha256(ids),
        "own_windows": str(len(orders)),
        "dialog_windows": str(sum(order.is_dialog for order in orders)),
        "template": found.reason or "the model's own",
        "sampled_in": str(dtype).removeprefix("torch."),
    }
    return CalibrationWindows(ids, origin)


def ids_sha256(ids: Tensor) -> str:
    """Return the hash of ids as little-endian int32, row by row."""
    return hashlib.sha256(
        ids.to(torch.int32).contiguous().numpy().astype("<i4").tobytes()
    ).hexdigest()
