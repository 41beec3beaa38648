"""What each step of an artifact that always rounds put into its KV cache, against eager's step.

It knows a session and eager's passes; it does not know limits or reports.

Shapes: P positions, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from llama_export.ops import KeyValue
from llama_export.verify.calls import single_steps
from llama_export.verify.eager import Eager
from llama_export.verify.metrics import relative_rms_by_position

if TYPE_CHECKING:
    from llama_export.targets import Session


@dataclass(frozen=True)
class StepDifference:
    """How far the rows that single steps wrote are from eager's, in one layer.

    Args:
        where: such as "keys of layer 3".
        median: over the positions, of the relative difference of a row: a step in which no
            rounding tipped differs by float32 sums alone, and most are such in the first layers.
    """

    where: str
    median: float


def stepped_caches(
    session: Session, input_ids: Sequence[int], tick: Callable[[], None]
) -> tuple[KeyValue, ...]:
    """Feed an empty session token by token, and return its cache, `[K, P, D]` a layer.

    The session is empty again afterwards.
    """
    for token in input_ids:
        single_steps(session, (token,), tick)
    caches = []
    for layer in range(session.num_layers):
        key, value = (torch.from_numpy(rows) for rows in session.cache(layer))
        caches.append((key, value))
    session.rewind(0)
    return tuple(caches)


def compare_steps(taught: Eager, given: Sequence[KeyValue]) -> tuple[StepDifference, ...]:
    """Compare every layer's rows, in the order of computation."""
    found = []
    for layer, (own, theirs) in enumerate(zip(taught.states.cache, given, strict=True)):
        for name, wanted, rows in zip(("keys", "values"), own, theirs, strict=True):
            by_position = relative_rms_by_position(wanted[0].numpy(), rows.numpy())
            median = float(np.median(np.nan_to_num(by_position, nan=np.inf)))
            found.append(StepDifference(f"{name} of layer {layer}", median))
    return tuple(found)
