"""llama-export: turn a Llama checkpoint into artifacts that run on phones and desktops.

`load` opens a bundle from Python; docs/python.md shows how. Importing this package loads nothing
else: the names below arrive when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from llama_export.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from llama_export.errors import LlamaExportError
    from llama_export.generation.conversation import Conversation
    from llama_export.generation.sampling import Sampling
    from llama_export.generation.text_session import TextSession
    from llama_export.tokenizer.chat_format import Message

__all__ = [
    "Conversation",
    "LlamaExportError",
    "Message",
    "Sampling",
    "TextSession",
    "__version__",
    "load",
]

_PLACES = {
    "Conversation": "llama_export.generation.conversation",
    "LlamaExportError": "llama_export.errors",
    "Message": "llama_export.tokenizer.chat_format",
    "Sampling": "llama_export.generation.sampling",
    "TextSession": "llama_export.generation.text_session",
}


def load(
    bundle: str | Path,
    *,
    threads: int | None = None,
    max_context: int | None = None,
    saved: str | Path | None = None,
) -> TextSession:
    """Open a bundle to write with it; torch is not needed.

    Args:
        bundle: its folder.
        threads: of the runtime, from 1 to the number of cores; None: one a core.
        max_context: use at most so many of the bundle's positions; None: all.
        saved: a file that `TextSession.save` or a conversation wrote; its KV cache is taken over.

    Raises:
        UsageError: a number is out of its range.
        BundleError: it is no bundle, or a damaged one.
        BackendUnavailableError: the target's runtime is not installed.
        PromptError: `saved` is missing, damaged, or of another bundle.
    """
    from llama_export.generation.text_session import TextSession

    session = TextSession.open(bundle, threads=threads, max_context=max_context)
    if saved is not None:
        session.restore(saved)
    return session


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_PLACES[name]), name)
