"""The limits that a verification judges by, but for each target's own, each with its reason.

A limit is an upper one. It knows no bundle and no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_export.targets import registry
from llama_export.targets.limits import Limit, Limits

# By the fewest bits that any tensor is stored in.
QUANTISATION_KL: Mapping[int, Limit] = {
    4: Limit(0.5, "int4 costs about 0.01; half a nat is a fault, not rounding"),
    8: Limit(0.02, "int8 rows cost about 0.0001"),
    16: Limit(2e-3, "bf16 and fp16 keep a checkpoint to 8 bits of mantissa or better"),
}

# A share of the uniform guess's loss ln(V). Random weights score 1 or more; the demo model 0.45.
TRAINED_SHARE = Limit(0.75, "a model worse than this has not learnt the text's language")

# Below this the weights are kept so well that int8 activations cost more, whatever the runtime.
SHARE_FLOOR = Limit(2e-3, "a third of less would be below the rounding of int8 activations")


def limits_for(target: str, kv_dtype: str = "float32") -> Limits:
    """Return a target's limits, for a KV cache of a type.

    Raises:
        BundleError: no target of that name is known.
    """
    return registry.get(target).limits.for_cache(kv_dtype)
