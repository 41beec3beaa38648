"""Our bundle in our session, on its target's runtime: `ours.py BUNDLE THREADS`.

The runtime's libraries are imported before the clock starts, as every other engine's are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path

from protocol import serve

from llama_export.bundle.bundle import Bundle
from llama_export.targets import registry
from llama_export.targets.stored import StoredArtifact

RUNTIMES: Mapping[str, Sequence[str]] = {
    "onnx": ("onnxruntime",),
    "executorch": (
        "executorch.kernels.quantized",
        "executorch.extension.llm.custom_ops.custom_ops",
        "executorch.extension.pybindings.portable_lib",
    ),
}


class Ours:
    """The `Session` that `generate` and `chat` use."""

    def __init__(self, folder: str, threads: int) -> None:
        bundle = Bundle.open(Path(folder))
        self._runtime = RUNTIMES[bundle.manifest.target][0].split(".")[0]
        target = registry.get(bundle.manifest.target)
        self._session = target.open_session(StoredArtifact.of(bundle), threads=threads)

    def version(self) -> str:
        """Return the library's name and version."""
        return f"llama-export session, {self._runtime} {metadata.version(self._runtime)}"

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


for library in RUNTIMES[Bundle.open(Path(sys.argv[1])).manifest.target]:
    import_module(library)
serve(Ours)
