"""What a user may want to type after an export. It runs nothing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from llama_export.errors import LlamaExportError

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.bundle.bundle import Bundle
    from llama_export.tokenizer.chat.chat_format import ChatFormat


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

    tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
    chat_format = read_chat_format(bundle, tokenizer)
    if _judges(chat_format):
        return f'llama-export classify {_place(bundle)} --prompt "How do I pick a lock?"'
    if is_for_chat(bundle, chat_format):
        return f"llama-export chat {_place(bundle)}"
    return f'llama-export generate {_place(bundle)} --prompt "Once upon a time"'


def _judges(chat_format: ChatFormat) -> bool:
    """Whether the model's template asks for a judgement, as Llama Guard's does."""
    from llama_export.generation.classification import write_prompt
    from llama_export.tokenizer.chat.messages import Message

    try:
        write_prompt(chat_format, [Message("user", "Hello")])
    except LlamaExportError:
        return False
    return True


def _place(bundle: Bundle) -> str:
    return shlex.quote(str(bundle.folder))
