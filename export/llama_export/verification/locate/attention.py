"""Check attention on the artifact's own queries, keys, values and cache.

The resulting cache is compared first, row by row, then the mixed values. `attention_call` computes
what should have come out, `attention_faults` recognises faults. It knows no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from llama_export.llama import intermediates
from llama_export.llama.intermediates import in_layer
from llama_export.verification.locate.attention_call import AttentionCall
from llama_export.verification.locate.attention_faults import attention_causes
from llama_export.verification.locate.evidence import Deviation, Evidence, relative_error

# Keys are one rotation, values are copied: 4e-7 was measured. A rope scaling that is left out
# gives 0.01 within 32 positions.
CACHE_LIMIT = 3e-5
# Scores of 50 carry float32 errors of 1e-5 into the exponent: 2e-6 was measured.
MIXED_LIMIT = 5e-4

_PARTS = (
    intermediates.QKV,
    intermediates.PAST_KEY,
    intermediates.PAST_VALUE,
    intermediates.KEY,
    intermediates.VALUE,
    intermediates.MIXED,
)
_NAMES = {
    intermediates.KEY: "keys",
    intermediates.VALUE: "values",
    intermediates.MIXED: "mixed values",
}


@dataclass(frozen=True)
class Attention:
    """The attention operator of a layer, with its rotary embedding and its cache."""

    layer: int

    @property
    def name(self) -> str:
        """Return the path of the module, which here stands for the module without its products."""
        return f"model.layers.{self.layer}.self_attn (attention)"

    @property
    def point(self) -> str:
        """Return the point of the mixed values."""
        return in_layer(self.layer, intermediates.MIXED)

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads."""
        return tuple(in_layer(self.layer, part) for part in _PARTS)

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Compare keys, values and mixed values of every call; yield the first that is wrong."""
        for tapped in evidence.tapped:
            values = {part: tapped.values[in_layer(self.layer, part)] for part in _PARTS}
            call = AttentionCall.read(evidence.config, values)
            for part in _NAMES:
                error = relative_error(call.expected[part], call.found[part], call.scale[part])
                limit = MIXED_LIMIT if part == intermediates.MIXED else CACHE_LIMIT
                if float(error.max()) > limit:
                    yield self._deviation(call, part, error, limit)
                    return

    def _deviation(self, call: AttentionCall, part: str, error: Tensor, limit: float) -> Deviation:
        by_position = error.amax((0, 2))
        wrong = (by_position > limit).nonzero().flatten().tolist()
        first = call.start if part == intermediates.MIXED else 0
        count = f"{len(wrong)} position{'s' if len(wrong) > 1 else ''}"
        position = int(by_position.argmax()) + first
        where = f"the {_NAMES[part]} of {count} differ, most at position {position}"
        if call.start:
            where += f", in a call of {call.length} after {call.start} tokens"
        worst = float(error.max())

        def explain() -> str:
            return next(attention_causes(call, part, wrong, worst, limit), "")

        point = in_layer(self.layer, part)
        return Deviation(self.name, self.layer, point, worst, limit, where, explain)
