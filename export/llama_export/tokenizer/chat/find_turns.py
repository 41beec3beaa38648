"""Find a model's turns, proved equal to its chat template; or say why there are none.

A template is a program, and may do anything. What `take_apart` makes of it must give its very ids
on twenty dialogs, each with something that a template may look at. Where it doesn't, the reason is
a sentence, and an app shows it. The module knows no model, and reads no template's source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from llama_export.errors import LlamaExportError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.probes import NoTurnsError, rendered
from llama_export.tokenizer.chat.proof_dialogs import proof_dialogs
from llama_export.tokenizer.chat.take_apart import taken_apart
from llama_export.tokenizer.chat.turns import SYSTEM, Date, Said, Turns
from llama_quantize.printable import clipped, printable

BASE_MODEL = "the model has no chat template: it goes on with a text"
_MOST_REASON = 400
# Two that differ in every part, with one digit and with two.
_TIMES = (datetime(2024, 7, 5, 9, 3, 7), datetime(2031, 11, 26, 18, 45, 52))


@dataclass(frozen=True)
class FoundTurns:
    """A model's turns, or why there are none: one of the two is None."""

    turns: Turns | None
    reason: str | None

    def to_json(self) -> dict[str, object]:
        """Return plain data, as a manifest has it."""
        turns = None if self.turns is None else self.turns.to_json()
        return {"turns": turns, "reason": self.reason}


def find_turns(form: ChatFormat) -> FoundTurns:
    """Find the turns of a model's default template, proved equal to it, or the reason why not."""
    if not form.templates:
        return FoundTurns(None, BASE_MODEL)
    try:
        turns = taken_apart(form)
        _prove(form, turns)
    except NoTurnsError as error:
        return FoundTurns(None, clipped(printable(str(error), keep=""), _MOST_REASON))
    return FoundTurns(turns, None)


def _prove(form: ChatFormat, turns: Turns) -> None:
    """Compare the ids of the turns with the template's on every dialog, at two times.

    Where there can be no system message, the dialogs are without theirs.
    """
    for name, dialog in proof_dialogs(form.tokenizer.special_tokens).items():
        messages = [each for each in dialog if each[0] != SYSTEM or turns.system is not None]
        for now in _TIMES:
            given = [Message(role, content) for role, content in messages]
            text = rendered(form, messages, now=now, what=name)
            try:
                expected = form.encode(Dialog(given, now=now))
                found = turns.encode(form.tokenizer, messages, now)
            except LlamaExportError as error:
                message = f"a dialog with {name} cannot be encoded: {error.message}"
                raise NoTurnsError(message) from None
            if expected != found:
                raise NoTurnsError(_why(form, turns, messages, text, name, now))


def _why(
    form: ChatFormat,
    turns: Turns,
    messages: Sequence[Said],
    text: str,
    name: str,
    now: datetime,
) -> str:
    """Find whose fault it is that a dialog's ids differ: the template's, or the tokenizer's."""
    names = {token_id: name for name, token_id in form.tokenizer.special_tokens.items()}
    written = [
        now.strftime(piece.format)
        if isinstance(piece, Date)
        else piece
        if isinstance(piece, str)
        else names[piece]
        for piece in turns.pieces(messages)
    ]
    if "".join(written) == text:
        return (
            "the tokenizer encodes a text behind a special token otherwise than alone, as seen in "
            f"a dialog with {name}"
        )
    return "what the template writes depends on what a dialog holds, as seen in one with " + name
