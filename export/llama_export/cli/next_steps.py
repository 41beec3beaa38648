"""What a user may want to type after an export. It runs nothing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.bundle.bundle import Bundle


def show_next_steps(console: Console, bundle: Bundle, *, verify: str | None) -> None:
    """Print the commands that a fresh bundle is tried and proved with.

    Args:
        console: where messages go.
        bundle: first bundle of the export.
        verify: command that proves the bundle; None: there is none.
    """
    if bundle.manifest.runs_here:
        commands = [_first_try(bundle), verify]
    else:
        commands = [f"llama-export inspect {_place(bundle)}"]
    console.print("\nNext:")
    for command in commands:
        if command is not None:
            console.print(f"  {command}", soft_wrap=True)


def _first_try(bundle: Bundle) -> str:
    """Return the command that shows what a model was made for: to judge, to answer, to go on."""
    from llama_export.generation.chat_model import is_for_chat, read_chat_format
    from llama_export.tokenizer.tokenizer import load_tokenizer

    if bundle.manifest.model.reading.get("head_tokens"):
        return f'llama-export classify {_place(bundle)} --prompt "How do I pick a lock?"'
    tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
    if is_for_chat(bundle, read_chat_format(bundle, tokenizer)):
        return f"llama-export chat {_place(bundle)}"
    return f'llama-export generate {_place(bundle)} --prompt "Once upon a time"'


def _place(bundle: Bundle) -> str:
    return shlex.quote(str(bundle.folder))
