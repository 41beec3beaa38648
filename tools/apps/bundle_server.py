"""Run bundles for tests in another root: ids or calls in, logits out, through a socket on loopback.

    python tools/apps/bundle_server.py FOLDER COMMAND...

It listens on a free port of 127.0.0.1, runs COMMAND with LLAMA_BUNDLE_SERVER=PORT, and ends with
its exit status. A client names what it wants in its first line, a bundle below FOLDER:

- `step NAME`: the bundle in Python's own runtime, as `step_server.py` speaks;
- `calls NAME`: a Core ML package in the evaluator, call by call. A request is five int32: the
  number n of ids, which function (0 the only one, 1 prefill, 2 decode), the position, how many of
  the ids count, and the columns of the mask; then n int32. The answer is V float32, the logits of
  the last row. The server keeps the caches and nothing else: what a call says is the client's.

All numbers are little-endian.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

import step_server
from llama_export.bundle.bundle import Bundle
from llama_export.targets import registry
from llama_export.targets.coreml import signature
from llama_export.targets.coreml.options import DECODE, PREFILL
from llama_export.targets.coreml.running.layout import Layout
from llama_export.targets.stored import StoredArtifact

if TYPE_CHECKING:
    from coreml_evaluator import Evaluator
    from llama_export.targets.coreml.running.runner import Array

CALL = struct.Struct("<5i")
FUNCTIONS = (None, PREFILL, DECODE)
PORT_VARIABLE = "LLAMA_BUNDLE_SERVER"


class Package:
    """A Core ML package in the evaluator, with the caches of one conversation.

    Args:
        folder: the bundle.
    """

    def __init__(self, folder: Path) -> None:
        from coreml_evaluator import Evaluator

        artifact = StoredArtifact.of(Bundle.open(folder))
        self._runner: Evaluator = Evaluator.open(artifact.path, mode="fp16", threads=1)
        self._state = self._runner.make_state()
        self.layout = Layout.of(artifact.spec)
        empty = np.zeros(self.layout.cache_shape(1), dtype=np.float16)
        self._caches: list[Array] = [empty, empty]

    def call(self, ids: Sequence[int], fields: Sequence[int]) -> Array:
        """Make one call as its client wrote it and return the last row's logits, float32 `[V]`."""
        function, position, length, columns = fields
        inputs: dict[str, Array] = {signature.INPUT_IDS: np.array([ids], dtype=np.int32)}
        if self.layout.kv_cache == "io":
            rows = slice(0, 1 + position)
            kept = [np.ascontiguousarray(cache[:, :, :, rows]) for cache in self._caches]
            inputs |= dict(zip((signature.KEY_CACHE, signature.VALUE_CACHE), kept, strict=True))
            results = self._runner.predict(inputs)
            names = (signature.PRESENT_KEYS, signature.PRESENT_VALUES)
            self._caches = [results[name] for name in names]
        elif self.layout.prefill_tokens:
            inputs[signature.POSITION] = np.array([position], dtype=np.int32)
            if FUNCTIONS[function] == PREFILL:
                inputs[signature.LENGTH] = np.array([length], dtype=np.int32)
            results = self._runner.predict(inputs, self._state, function=FUNCTIONS[function])
        else:
            mask = np.zeros((1, 1, 1, columns), dtype=np.float16)
            inputs[signature.CAUSAL_MASK] = mask
            results = self._runner.predict(inputs, self._state)
        return np.asarray(results[signature.LOGITS][0, -1], dtype=np.float32)


def serve_calls(package: Package, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls until there are no more."""
    answers.write(step_server.HEADER.pack(package.layout.num_logits, package.layout.max_context))
    answers.flush()
    while header := requests.read(CALL.size):
        count, *fields = CALL.unpack(header)
        ids = struct.unpack(f"<{count}i", requests.read(4 * count))
        answers.write(package.call(ids, fields).astype("<f4").tobytes())
        answers.flush()


def serve_client(folder: Path, client: socket.socket) -> None:
    """Serve one connection; a client that asks for what there is not finds it closed."""
    with client, client.makefile("rb") as requests, client.makefile("wb") as answers:
        kind, name = requests.readline().decode().split()
        bundle = folder / name
        if kind == "calls":
            serve_calls(Package(bundle), requests, answers)
            return
        target = Bundle.open(bundle).manifest.target
        artifact = StoredArtifact.of(Bundle.open(bundle))
        session = registry.get(target).open_session(artifact, threads=1)
        try:
            step_server.serve(session, requests, answers)
        finally:
            session.close()


def listen(folder: Path) -> int:
    """Serve connections from now on, each in a thread of its own, and return the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            client, _ = server.accept()
            threading.Thread(target=serve_client, args=(folder, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def main(folder: Path, command: Sequence[str]) -> int:
    """Serve the bundles below a folder while a command runs, and return its exit status."""
    environment = {**os.environ, PORT_VARIABLE: str(listen(folder))}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
