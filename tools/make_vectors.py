"""Write the test vectors that the apps read, in `apps/shared/vectors`.

    .venv/bin/python tools/make_vectors.py [FOLDER]

Python writes them with the code that users run; the apps' tests read them, and a test compares the
files with what this tool makes. The same code gives the same bytes. This script knows the files and
their form; their content is made elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_vectors import bench_vectors
from chat_vectors import chat_vectors
from generation_vectors import generation_vectors
from golden_vectors import golden_vectors
from manifest_vectors import manifest_vectors
from sampler_vectors import sampler_vectors
from small_tokenizer_vectors import small_tokenizer_vectors
from tokenizer_vectors import tokenizer_vectors

FOLDER = Path(__file__).resolve().parents[1] / "apps" / "shared" / "vectors"
FILES: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "chat.json": chat_vectors,
    "bench.json": bench_vectors,
    "generation.json": generation_vectors,
    "golden.json": golden_vectors,
    "manifests.json": manifest_vectors,
    "sampler.json": sampler_vectors,
    "small_tokenizers.json": small_tokenizer_vectors,
    "tokenizer.json": tokenizer_vectors,
}


def render(document: Mapping[str, Any]) -> bytes:
    """Return a document as ASCII JSON, with each entry of a list on a line of its own."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            entries = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            parts.append(f" {json.dumps(key)}: [\n{entries}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode("ascii")


def main(arguments: Sequence[str]) -> int:
    """Write every file into the named folder, or into the repository's own."""
    if len(arguments) > 1:
        print("usage: python tools/make_vectors.py [FOLDER]", file=sys.stderr)
        return 2
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        (folder / name).write_bytes(render(make()))
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
