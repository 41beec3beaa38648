"""Step a bundle for another program: ids in, logits out, through standard input and output.

    python tools/apps/step_server.py BUNDLE

For artifacts that no runtime loads into that program. All numbers are little-endian. First it sends
two int32, the sizes of the vocabulary and of the context. A request is two int32, the number n of
ids and the position to go back to, and n int32; the answer is the logits after the last id, V
float32. It ends with its input, and with a message on stderr when something is wrong.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from llama_export.targets.session import Session

HEADER = struct.Struct("<2i")


def claim_stdout() -> IO[bytes]:
    """Return standard output for ourselves; what a runtime prints goes to stderr from now on."""
    ours = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return ours


def serve(session: Session, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    answers.write(HEADER.pack(session.vocab_size, session.max_context))
    answers.flush()
    while header := requests.read(HEADER.size):
        count, position = HEADER.unpack(header)
        ids = struct.unpack(f"<{count}i", requests.read(4 * count))
        session.rewind(position)
        answers.write(session.prefill(ids).astype("<f4").tobytes())
        answers.flush()


def main(folder: Path) -> int:
    """Open the bundle and serve it."""
    answers = claim_stdout()
    from llama_export.bundle.bundle import Bundle
    from llama_export.targets import registry
    from llama_export.targets.stored import StoredArtifact

    bundle = Bundle.open(folder)
    session = registry.get(bundle.manifest.target).open_session(
        StoredArtifact.of(bundle), threads=1
    )
    serve(session, sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
