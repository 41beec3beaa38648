"""Name the first layer and operator at which an artifact stops computing what it should.

Every operator is computed from the artifact's own input, so that it is judged alone: a fault does
not spread to what follows it, the first one found is the first there is, and a second one shows
too. Of a weight, a block of rows is in memory. It knows points and operators; no runtime and no
report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import torch

from llama_export.llama import intermediates
from llama_export.llama.config import LlamaConfig
from llama_export.llama.intermediates import Probe
from llama_export.llama.streamed import ReadWeight
from llama_export.verification.findings import Divergence
from llama_export.verification.locate.evidence import Deviation, Evidence
from llama_export.verification.locate.operators import Lookup, Operator, operators
from llama_quantize.workers import worker_pool

MOST_POSITIONS = 32


@torch.inference_mode()
def locate(
    probe: Probe, config: LlamaConfig, read: ReadWeight, input_ids: Sequence[int]
) -> Divergence | None:
    """Find the first operator of an artifact that is wrong on its own input.

    The tokens are fed in three calls, a prefill, one token and the rest, to catch what only goes
    wrong with a cache, or in a step of one token.

    Args:
        probe: function that runs the artifact and returns the values inside; called again where
            rows of the head differ, to see whether the embedding has the same fault.
        config: shape of the model.
        read: function that returns a quantised weight by its Hugging Face name.
        input_ids: at least one token; the first `MOST_POSITIONS` are used.

    Returns:
        The first divergence, or None when every operator is right over these tokens: a fault is
        then outside the graph, or shows only with other tokens.

    Raises:
        BundleError: the artifact cannot be run.
    """
    chunks = split(input_ids)
    evidence = Evidence(config, read, chunks, probe(chunks))
    found = _deviations(evidence)
    by_name = {deviation.operator: deviation for deviation in found}
    if (
        intermediates.HEAD in by_name
        and intermediates.EMBEDDING not in by_name
        and by_name[intermediates.HEAD].rows
    ):
        # A table's row that this text does not hold shows in the head alone.
        again = [by_name[intermediates.HEAD].rows[: len(input_ids)]]
        found = [*Lookup().check(Evidence(config, read, again, probe(again))), *found]
    if not found:
        return None
    first = found[0]
    names = dict.fromkeys(deviation.operator for deviation in found[1:])
    cause = first.explain()
    return Divergence(
        layer=first.layer,
        operator=first.operator,
        value=evidence.name(first.point),
        error=first.error,
        limit=first.limit,
        detail=f"{first.where}; likely cause: {cause}" if cause else first.where,
        others=tuple(name for name in names if name != first.operator),
    )


def split(input_ids: Sequence[int]) -> list[list[int]]:
    """Cut tokens into a prefill, one token, and the rest; short texts into fewer."""
    ids = list(input_ids[:MOST_POSITIONS])
    start = max(1, len(ids) // 2)
    return [chunk for chunk in (ids[:start], ids[start : start + 1], ids[start + 1 :]) if chunk]


def _deviations(evidence: Evidence) -> list[Deviation]:
    """Return what is wrong in order; of the operators that the artifact lacks, only the first."""

    @torch.inference_mode()
    def check(operator: Operator) -> list[Deviation]:
        if all(evidence.has(point) for point in operator.needs):
            return list(operator.check(evidence))
        return [_absent(operator, evidence)]

    # A thread an operator: torch's own, which share each small product, cost many times that where
    # the machine is busy.
    with worker_pool() as pool:
        found = list(chain.from_iterable(pool.map(check, operators(evidence.config))))
    lacking = [index for index, deviation in enumerate(found) if deviation.limit == 0]
    return [deviation for index, deviation in enumerate(found) if index not in lacking[1:]]


def _absent(operator: Operator, evidence: Evidence) -> Deviation:
    missing = ", ".join(point for point in operator.needs if not evidence.has(point))
    where = f"the artifact's graph is another: it has no value of the right shape for {missing}"
    return Deviation(
        operator.name, operator.layer, operator.point, math.inf, 0.0, where, lambda: ""
    )
