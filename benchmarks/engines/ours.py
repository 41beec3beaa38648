"""Our bundle in our session, on onnxruntime: `ours.py BUNDLE THREADS`."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from protocol import serve

from llama_export.bundle import Bundle
from llama_export.targets.registry import open_session


class Ours:
    """The `Session` that `generate` and `chat` use."""

    def __init__(self, bundle: str, threads: int) -> None:
        self._session = open_session(Bundle.open(Path(bundle)), threads=threads)

    def version(self) -> str:
        """Name the library and its version."""
        return f"llama-export session, onnxruntime {onnxruntime.__version__}"

    def clear(self) -> None:
        """Forget the conversation."""
        self._session.rewind(0)

    def prefill(self, tokens: list[int]) -> None:
        """Append tokens and compute the logits after the last of them."""
        self._logits = self._session.prefill(tokens)

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""
        self._session.rewind(position)

    def step(self) -> None:
        """Append the likeliest next token, and compute the logits after it."""
        self._logits = self._session.prefill([int(self._logits.argmax())])


serve(Ours)
