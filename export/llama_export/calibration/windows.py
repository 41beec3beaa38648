"""Gather the tokens that a calibrated method looks at: the model's own text, and the user's.

It brings together what the files beside it make; it knows no method.

Shapes: B windows, S tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from llama_export.calibration.options import WINDOW_TOKENS, CalibrationOptions
from llama_export.calibration.own_text import Order, OwnWriter, text_start
from llama_export.calibration.refused import RefusedRuns
from llama_export.calibration.scripts import DialogForm
from llama_export.calibration.stepwise import mapped_floats, quick_dtype
from llama_export.calibration.text_files import list_files
from llama_export.calibration.user_text import UserText, UserWindow
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.errors import CheckpointError, UsageError
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.chat.find_turns import find_turns
from llama_quantize.checkpoint.files import file_sha256

# How often a window is written anew that holds what `verify` measures on.
_ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class CalibrationWindows:
    """The tokens of a calibration.

    Args:
        ids: int64 `[B, S]`; any first part of them is about as fair a mix as all.
        is_user: bool `[B]`, which of them are of the user's text.
        origin: what they were made of, and what decided that.
    """

    ids: Tensor
    is_user: Tensor
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
        UsageError: a number is out of its range, or the model can write some tokens only and no
            text was given.
        PromptError: a text cannot be read, or `verify` measures on it.
        CheckpointError: the model's logits are not finite, or all that it writes is refused.
        OSError: the disk is full.
    """
    if options.tokens < 1 or options.seed < 0:
        found = f"{options.tokens} tokens and seed {options.seed}"
        message = f"a calibration takes at least 1 token, and a seed from 0 on: found {found}"
        raise UsageError(message)
    window = min(WINDOW_TOKENS, checkpoint.config.longest_context)
    turns = find_turns(form)
    orders = _orders(checkpoint.config, form, options, window, has_turns=turns.turns is not None)
    given = {each.number: torch.tensor(each.given) for each in orders if _is_whole(each, window)}
    wanted = [each for each in orders if each.number not in given]
    told = _Progress(progress, len(orders) * window)
    told.advance(len(given) * window)
    written = _Written({}, 0)
    if wanted:
        dialogs = None if turns.turns is None else DialogForm.of(form.tokenizer, turns.turns)
        start = text_start(checkpoint.config, form.tokenizer, is_chat=form.is_for_chat)
        refused = RefusedRuns.of_verification(form.tokenizer)
        with mapped_floats(checkpoint, quick_dtype(), scratch) as weights:
            config, seed = checkpoint.config, options.seed
            writer = OwnWriter(config, weights, form.tokenizer, dialogs, start, seed)
            written = _write(lambda some: writer.write(some, window, told.advance), wanted, refused)
    rows = {**given, **written.rows}
    kept = [each for each in orders if each.number in rows]
    ids = torch.stack([rows[each.number] for each in kept])
    origin = {
        "tokens": str(ids.numel()),
        "window": str(window),
        "seed": str(options.seed),
        "ids_sha256": ids_sha256(ids),
        "user_windows": str(sum(bool(each.given) for each in kept)),
        "text_windows": str(sum(not each.given and not each.is_dialog for each in kept)),
        "dialog_windows": str(sum(each.is_dialog for each in kept)),
        "written_again": str(written.again),
        "left_out": str(len(orders) - len(kept)),
        "template": turns.reason or "the model's own",
        "written_in": str(quick_dtype()).removeprefix("torch.") if wanted else "nothing",
        "user_text_sha256": " ".join(file_sha256(path) for path in list_files(options.files)),
    }
    return CalibrationWindows(ids, torch.tensor([bool(each.given) for each in kept]), origin)


def ids_sha256(ids: Tensor) -> str:
    """Return the hash of ids as little-endian int32, row by row."""
    packed = ids.to(torch.int32).contiguous().numpy().astype("<i4")
    return hashlib.sha256(packed.tobytes()).hexdigest()


def _orders(
    config: LlamaConfig,
    form: ChatFormat,
    options: CalibrationOptions,
    window: int,
    *,
    has_turns: bool,
) -> list[Order]:
    """List all windows: the user's evenly among the model's own, of which half are dialogs.

    A model whose head was pruned writes none: then all are the user's.

    Raises:
        UsageError, PromptError: as `gather_windows`.
    """
    count = max(1, options.tokens // window)
    writes_none = bool(config.head_tokens)
    user: list[UserWindow] = []
    if options.files:
        text = UserText.of(options.files, form)
        user = text.windows(count if writes_none else -(-count // 2), window, options.seed)
    if writes_none:
        user = [each for each in user if len(each.ids) == window]
        count = len(user)
        if not user:
            message = f"the model writes some tokens only, and was given no {window} to read"
            raise UsageError(message, "give texts as it will read them, with --calibration FILE")
    left = iter(user)
    orders, own = [], 0
    for at in range(count):
        if (at + 1) * len(user) // count > at * len(user) // count:
            orders.append(Order(at, given=next(left).ids))
        else:
            orders.append(Order(at, is_dialog=has_turns and own % 2 == 1))
            own += 1
    return orders


def _is_whole(order: Order, window: int) -> bool:
    return len(order.given) == window


@dataclass(frozen=True)
class _Written:
    """Windows by their numbers, and how often one was refused."""

    rows: Mapping[int, Tensor]
    again: int


def _write(
    write: Callable[[Sequence[Order]], Tensor], orders: Sequence[Order], refused: RefusedRuns
) -> _Written:
    """Let the model write windows, and write those anew that hold what `verify` measures on.

    Raises:
        CheckpointError: all of them hold it, however often they are written.
    """
    rows: dict[int, Tensor] = {}
    again = 0
    for attempt in range(_ATTEMPTS):
        wanted = [replace(each, attempt=attempt) for each in orders if each.number not in rows]
        for order, row in zip(wanted, write(wanted), strict=True):
            if refused.find(row.tolist()) is None:
                rows[order.number] = row
            else:
                again += 1
    if not rows:
        message = "whatever the model writes holds text that `verify` measures on"
        raise CheckpointError(message, "was it trained on the texts of this program?")
    return _Written(rows, again)


class _Progress:
    """Counts tokens; windows that are written anew do not count."""

    def __init__(self, told: Callable[[int, int], None], total: int) -> None:
        self._told, self._total, self._done = told, total, 0

    def advance(self, tokens: int) -> None:
        """Count some tokens more."""
        self._done = min(self._done + tokens, self._total)
        self._told(self._done, self._total)
