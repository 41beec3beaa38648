"""`Limits`: how far a target's artifact may be from the eager model, each limit with its reason.

A limit is an upper one. The numbers stand with each target; the judging is `verify`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limit:
    """An upper limit and why it is there."""

    value: float
    reason: str


_NO_OTHER = Limit(0.0, "the runtime is its own reference")
# Attention in float16 has 11 bits: 1e-4 was measured in the first layer, and it grows.
_FLOAT16_STEP = Limit(5e-3, "keys, values and attention are float16")


@dataclass(frozen=True)
class Limits:
    """The limits of one target's lowering error.

    Args:
        has_exact_mode: whether the runtime can compute in exact float32; where it cannot, it always
            rounds activations, and eager rounds alike.
        exact_wording: how an artifact computes when it is compared exactly.
        exact_kl: mean KL in exact arithmetic, artifact against eager.
        exact_rel_rms: relative difference of the logits in exact arithmetic.
        same_rel_rms: the same at one position: against eager, and after the same tokens in other
            portions.
        cache_rel_rms: worst layer's and position's relative difference of keys and values.
        shipped_kl: mean KL of the artifact as shipped.
        explained_kl: the same over the cost of the emulated rounding, where that is known.
        shipped_kl_untrained: the same where neither rounding nor a checkpoint can be compared.
        emulated_share: mean KL as shipped against eager that rounds alike, over the cost of
            rounding.
        shipped_prefill_kl: KL at one position, after one prefill of the artifact as shipped.
        shipped_share: lowering error over quantisation error, both as mean KL.
        emulated_kl: mean KL as shipped against eager that rounds alike, always allowed.
        step_rel_rms: relative difference of the keys and values of a step in which no rounding
            tipped, for a runtime that always rounds.
        steps_stay_clean: whether there are such steps: with attention in float16 there are not.
        runtime_kl: mean KL of the runtime against the reference implementation, where there is one;
            it then takes the place of the limits "as shipped".
    """

    has_exact_mode: bool
    exact_wording: str
    exact_kl: Limit
    exact_rel_rms: Limit
    same_rel_rms: Limit
    cache_rel_rms: Limit
    shipped_kl: Limit
    explained_kl: Limit
    shipped_kl_untrained: Limit
    emulated_share: Limit
    shipped_prefill_kl: Limit
    shipped_share: Limit
    emulated_kl: Limit
    step_rel_rms: Limit
    steps_stay_clean: bool = True
    runtime_kl: Limit = _NO_OTHER

    def for_cache(self, kv_dtype: str) -> Limits:
        """Return the limits for an artifact whose KV cache has a type, "float32" or "float16"."""
        if kv_dtype == "float32":
            return self
        return replace(self, step_rel_rms=_FLOAT16_STEP, steps_stay_clean=False)
