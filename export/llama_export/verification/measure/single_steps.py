"""Compare what each step of an artifact that always rounds wrote into its KV cache with eager.

It knows a session and the eager passes; it knows neither limits nor reports.

Shapes: P positions, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from llama_export.errors import BundleError
from llama_export.llama.attention import KeyValue
from llama_export.llama.intermediates import FloatArray
from llama_export.verification.measure.cache_rms import relative_rms_by_position
from llama_export.verification.measure.eager import QuantisedEager
from llama_export.verification.measure.feed import single_steps

if TYPE_CHECKING:
    from llama_export.targets.session import Session


@dataclass(frozen=True)
class StepDifference:
    """How far the rows that single steps wrote are from eager's, in one layer.

    Args:
        where: place in the cache, such as "keys of layer 3".
        differences: relative difference of each step's row; infinite for one with a NaN.
        rounding: difference of the same rows between eager that rounds and eager that does not,
            median over the positions: tipped roundings spread no further than that.
    """

    where: str
    differences: tuple[float, ...]
    rounding: float

    @property
    def least(self) -> float:
        """Return the smallest difference of all steps."""
        return min(self.differences)

    def clean(self, limit: float) -> int:
        """Count the steps that differ by float32 sums alone, because no rounding tipped in them.

        The number falls from layer to layer, in a deep and wide model to none.

        Args:
            limit: largest relative difference that float32 sums alone can make.
        """
        return sum(difference <= limit for difference in self.differences)


def stepped_caches(
    session: Session, input_ids: Sequence[int], num_layers: int, tick: Callable[[], None]
) -> tuple[KeyValue, ...]:
    """Feed an empty session token by token; return keys and values `[K, P, D]` by layer.

    The session is empty again afterwards.

    Args:
        session: empty session of the artifact.
        input_ids: tokens to feed.
        num_layers: number of layers of the model.
        tick: function called after each call of the session.

    Raises:
        BundleError: the session has another number of layers than the model.
    """
    if session.num_layers != num_layers:
        message = f"the artifact has caches for {session.num_layers} of {num_layers} layers"
        raise BundleError(message, "export the bundle again")
    for token in input_ids:
        single_steps(session, (token,), tick)
    caches = []
    for layer in range(session.num_layers):
        key, value = (torch.from_numpy(rows) for rows in session.cache(layer))
        caches.append((key, value))
    session.rewind(0)
    return tuple(caches)


def compare_steps(
    quantised: QuantisedEager, artifact_cache: Sequence[KeyValue]
) -> tuple[StepDifference, ...]:
    """Compare every layer's rows in the order of computation.

    Args:
        quantised: eager passes with the quantised weights.
        artifact_cache: keys and values `[K, P, D]` by layer, as single steps wrote them.

    Returns:
        One for the keys and one for the values of each layer; none without a teacher-forced pass.
    """
    if quantised.teacher_forced is None:
        return ()
    found = []
    plain = quantised.plain.states.cache
    rounded = quantised.same_arithmetic.states.cache
    for layer, own in enumerate(quantised.teacher_forced.states.cache):
        for part, name in enumerate(("keys", "values")):
            rows = artifact_cache[layer][part].numpy()
            # The first token attends to itself alone, whatever is wrong with attention.
            first = min(1, rows.shape[1] - 1)
            differences = _by_position(own[part][0].numpy(), rows)[first:]
            count = rows.shape[1]
            cost = _by_position(
                plain[layer][part][0, :, :count].numpy(), rounded[layer][part][0, :, :count].numpy()
            )
            found.append(
                StepDifference(
                    where=f"{name} of layer {layer}",
                    differences=tuple(map(float, differences)),
                    rounding=float(np.median(cost)),
                )
            )
    return tuple(found)


def _by_position(wanted: FloatArray, found: FloatArray) -> FloatArray:
    """Return each row's relative difference; one that is not a number is infinite."""
    by_position = relative_rms_by_position(wanted, found).astype(np.float32)
    result: FloatArray = np.nan_to_num(by_position, nan=np.inf)
    return result
