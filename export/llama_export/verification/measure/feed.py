"""Call a session as every measurement does: keep the rows of logits, and count the calls.

It knows the `Session` protocol only.

Shapes: P positions, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llama_export.verification.measure.metrics import Logits

if TYPE_CHECKING:
    from llama_export.targets.session import Session

# 64 positions of a 128256-word vocabulary are 33 MB in float32.
_BLOCK_POSITIONS = 64


def prefill(session: Session, input_ids: Sequence[int], tick: Callable[[], None]) -> Logits:
    """Append tokens in one call; return the logits after the last of them, `[1, V]`."""
    # A copy: a runtime may hand out the buffer that it writes the next call's logits to.
    row: Logits = np.array(session.prefill(input_ids), dtype=np.float32)[None]
    tick()
    return row


def single_steps(session: Session, input_ids: Sequence[int], tick: Callable[[], None]) -> Logits:
    """Append tokens one at a time; return all their logits, `[P, V]`."""
    return np.concatenate([prefill(session, (token,), tick) for token in input_ids])


def blocks(start: int, stop: int) -> Iterator[slice]:
    """Cut positions into blocks whose logits fit into memory."""
    for first in range(start, stop, _BLOCK_POSITIONS):
        yield slice(first, min(first + _BLOCK_POSITIONS, stop))
