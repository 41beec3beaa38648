"""What a user may want to type after an export. It runs nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from llama_export.errors import LlamaExportError

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.bundle.bundle import Bundle
    from llama_export.tokenizer.chat.chat_format import ChatFormat


# The page that leads from a bundle into an app, by the system of the phone.
_PAGES: Mapping[str, tuple[str, str]] = {
    "Android": ("an Android app", "docs/android.md"),
    "iOS": ("an iPhone app", "docs/ios.md"),
}


def show_next_steps(console: Console, proofs: Sequence[tuple[Bundle, str | None]]) -> None:
    """Print the commands that fresh bundles are tried and proved with, and the way into an app.

    Args:
        console: where messages go.
        proofs: bundles of the export, each with the command that proves it; None: there is none.
    """
    bundles = [bundle for bundle, _ in proofs]
    runnable = [bundle for bundle in bundles if bundle.manifest.runs_here]
    # One model talks alike from every bundle, so one is enough to try it.
    lines = [_first_try(runnable[0])] if runnable else []
    elsewhere = (bundle for bundle in bundles if not bundle.manifest.runs_here)
    lines += [f"llama-export inspect {_place(bundle)}" for bundle in elsewhere]
    lines += [command for _, command in proofs if command is not None]
    console.print("\nNext:")
    for line in (*lines, *_ways_into_an_app(bundles)):
        console.print(f"  {line}", soft_wrap=True)


def _ways_into_an_app(bundles: Sequence[Bundle]) -> Iterator[str]:
    """Name, for each system of phones, the bundle that an app there takes first, and the page."""
    from llama_export.targets import registry

    for system, (app, page) in _PAGES.items():
        ranks = (registry.get(each.manifest.target).phone_systems.get(system) for each in bundles)
        ranked = [(rank, each) for rank, each in zip(ranks, bundles, strict=True) if rank]
        if ranked:
            _, best = min(ranked, key=lambda pair: pair[0])
            yield f"{_place(best)} in {app}: {page} of the project"


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
