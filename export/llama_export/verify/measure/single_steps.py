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

from llama_export.errors import BundleError
from llama_export.llama.attention import KeyValue
from llama_export.verify.measure.eager import QuantisedEager
from llama_export.verify.measure.feed import single_steps
from llama_export.verify.measure.metrics import relative_rms_by_position

if TYPE_CHECKING:
    from llama_export.llama.intermediates import FloatArray
    from llama_export.targets.session import Session


@dataclass(frozen=True)
class StepDifference:
    """How far the rows that single steps wrote are from eager's, in one layer.

    Args:
        where: such as "keys of layer 3".
        least: of all steps, the smallest relative difference of a row.
        clean: steps that differ by float32 sums alone, because no rounding tipped in them so far.
            Layer by layer there are fewer of them, in a deep and wide model none in the end.
        rounding: the same row's difference between eager that rounds and eager that does not, the
            median over the positions: tipped roundings spread no further than that.
    """

    where: str
    least: float
    clean: int
    rounding: float


def stepped_caches(
    session: Session, input_ids: Sequence[int], num_layers: int, tick: Callable[[], None]
) -> tuple[KeyValue, ...]:
    """Feed an empty session token by token, and return its cache, `[K, P, D]` a layer.

    The session is empty again afterwards.

    Raises:
        BundleError: it has another number of layers than the model.
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
    quantised: QuantisedEager, given: Sequence[KeyValue], clean_limit: float
) -> tuple[StepDifference, ...]:
    """Compare every layer's rows, in the order of computation; nothing where no step was taught.

    Args:
        quantised: eager's passes.
        given: the rows that the artifact's single steps wrote, `[K, P, D]`.
        clean_limit: the relative difference that float32 sums alone can make.
    """
    if quantised.taught is None:
        return ()
    found = []
    plain, rounded = quantised.plain.states.cache, quantised.alike.states.cache
    for layer, own in enumerate(quantised.taught.states.cache):
        for part, name in enumerate(("keys", "values")):
            rows = given[layer][part].numpy()
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
                    least=float(differences.min()),
                    clean=int((differences <= clean_limit).sum()),
                    rounding=float(np.median(cost)),
                )
            )
    return tuple(found)


def _by_position(wanted: FloatArray, found: FloatArray) -> FloatArray:
    """Give each row's relative difference; one that is not a number is as far off as can be."""
    by_position = relative_rms_by_position(wanted, found).astype(np.float32)
    result: FloatArray = np.nan_to_num(by_position, nan=np.inf)
    return result
