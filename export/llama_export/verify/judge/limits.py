"""The limits that a verification judges by: one table, each limit with its reason.

A limit is an upper one. It knows no bundle and no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llama_export.errors import BundleError


@dataclass(frozen=True)
class Threshold:
    """An upper limit and why it is there."""

    limit: float
    reason: str


_NO_OTHER = Threshold(0.0, "the runtime is its own reference")


@dataclass(frozen=True)
class TargetThresholds:
    """The limits of one target's lowering error.

    Args:
        exact_level: the accuracy level at which the runtime computes in exact float32; None: it
            always rounds activations, and eager rounds alike.
        exact_words: how an artifact computes there.
        exact_kl: mean KL at that level, artifact against eager.
        exact_rel_rms: relative difference of the logits at that level.
        same_rel_rms: relative difference of the logits after the same tokens in other portions.
        cache_rel_rms: worst layer's and position's relative difference of keys and values.
        shipped_kl: mean KL of the artifact as shipped.
        explained_kl: the same over what the emulated rounding costs, where that is known.
        shipped_kl_untrained: the same where neither rounding nor a checkpoint can be compared.
        emulated_share: mean KL as shipped against eager that rounds alike, over what rounding
            costs.
        shipped_prefill_kl: KL at one position, after one prefill of the artifact as shipped.
        shipped_share: lowering error over quantisation error, both as mean KL.
        emulated_kl: mean KL as shipped against eager that rounds alike, always allowed.
        step_rel_rms: of what always rounds, relative difference of the keys and values of that
            step in which no rounding tipped.
        steps_stay_clean: whether there are such steps: with attention in float16 there are not.
        runtime_kl: mean KL of the runtime against what computes as it should, where that is another
            thing; it then takes the place of the limits "as shipped".
    """

    exact_level: int | None
    exact_words: str
    exact_kl: Threshold
    exact_rel_rms: Threshold
    same_rel_rms: Threshold
    cache_rel_rms: Threshold
    shipped_kl: Threshold
    explained_kl: Threshold
    shipped_kl_untrained: Threshold
    emulated_share: Threshold
    shipped_prefill_kl: Threshold
    shipped_share: Threshold
    emulated_kl: Threshold
    step_rel_rms: Threshold
    steps_stay_clean: bool = True
    runtime_kl: Threshold = _NO_OTHER


_TARGETS: Mapping[str, TargetThresholds] = {
    "onnx": TargetThresholds(
        exact_level=1,
        exact_words="in float32 (accuracy level 1)",
        exact_kl=Threshold(1e-8, "only the order of float32 sums differs: 3e-11 measured at 1B"),
        exact_rel_rms=Threshold(1e-4, "float32 sums in another order: 8e-6 was measured at 1B"),
        same_rel_rms=Threshold(1e-4, "the same artifact in other portions: 7e-6 measured at 1B"),
        cache_rel_rms=Threshold(1e-4, "float32 sums in another order: 9e-6 was measured at 1B"),
        shipped_kl=Threshold(2e-3, "activations are rounded to int8: 8e-4 was measured at 1B"),
        shipped_kl_untrained=Threshold(5e-2, "random layers magnify rounding, trained ones do not"),
        explained_kl=Threshold(
            2.0, "nothing but rounding: 0.94 to 1.05 of the emulation's KL was measured"
        ),
        emulated_share=Threshold(
            2.0,
            "one float32 bit tips an int8 rounding, and that one tips more in each layer: 1.15 of "
            "the rounding's own KL was measured at 1B, 1e-13 where none tipped",
        ),
        shipped_prefill_kl=Threshold(2e-2, "one position may be ten times worse than the mean"),
        shipped_share=Threshold(1 / 3, "the runtime must not undo what careful rounding gained"),
        emulated_kl=Threshold(1e-8, "only the order of float32 sums differs: 3e-11 measured at 1B"),
        step_rel_rms=Threshold(1e-4, "float32 sums in another order"),
    ),
    "executorch": TargetThresholds(
        exact_level=None,
        exact_words="against eager that rounds alike",
        exact_kl=Threshold(2e-3, "tipped roundings spread: 2e-4 was measured on the demo"),
        exact_rel_rms=Threshold(5e-2, "tipped roundings spread: 6e-3 was measured on the demo"),
        same_rel_rms=Threshold(5e-2, "other portions tip other roundings"),
        cache_rel_rms=Threshold(0.2, "tipped roundings spread; the worst row of all"),
        shipped_kl=Threshold(2e-3, "activations are rounded to int8: 3e-4 measured on the demo"),
        shipped_kl_untrained=Threshold(5e-2, "random layers magnify rounding, trained ones do not"),
        explained_kl=Threshold(2.0, "nothing but rounding"),
        emulated_share=Threshold(
            1.0, "a step after the artifact's own cache: few roundings tip in one step"
        ),
        shipped_prefill_kl=Threshold(2e-2, "one position may be ten times worse than the mean"),
        shipped_share=Threshold(1 / 3, "the runtime must not undo what careful rounding gained"),
        emulated_kl=Threshold(1e-4, "a step in which no rounding tipped differs by 1e-12"),
        step_rel_rms=Threshold(1e-5, "2e-7 was measured where no rounding tipped"),
    ),
    # Level 1 is the evaluator without rounding to float16; as shipped, every result is rounded.
    "coreml": TargetThresholds(
        exact_level=1,
        exact_words="in float32 (evaluated without rounding)",
        exact_kl=Threshold(1e-8, "only the order of float32 sums differs: 4e-12 measured at 1B"),
        exact_rel_rms=Threshold(1e-4, "float32 sums in another order: 3e-6 was measured at 1B"),
        same_rel_rms=Threshold(1e-4, "the same package in other portions: 3e-6 measured at 1B"),
        cache_rel_rms=Threshold(1e-4, "float32 sums in another order: 4e-6 was measured at 1B"),
        shipped_kl=Threshold(1e-4, "activations and the cache are float16: 2e-6 measured at 1B"),
        shipped_kl_untrained=Threshold(1e-4, "activations and the cache are float16"),
        explained_kl=Threshold(2.0, "activations and the cache are float16"),
        emulated_share=Threshold(2.0, "activations and the cache are float16"),
        shipped_prefill_kl=Threshold(1e-3, "one position may be ten times worse than the mean"),
        shipped_share=Threshold(1 / 3, "the runtime must not undo what careful rounding gained"),
        emulated_kl=Threshold(1e-4, "activations and the cache are float16"),
        step_rel_rms=Threshold(1e-4, "float32 sums in another order"),
        runtime_kl=Threshold(1e-3, "an estimate, as no Mac has run it: a tenth of what int4 costs"),
    ),
}

# By the fewest bits that any tensor is stored in.
QUANTISATION_KL: Mapping[int, Threshold] = {
    4: Threshold(0.5, "int4 costs about 0.01; half a nat is a fault, not rounding"),
    8: Threshold(0.02, "int8 rows cost about 0.0001"),
    16: Threshold(2e-3, "bf16 and fp16 keep a checkpoint to 8 bits of mantissa or better"),
}

# A share of the uniform guess's loss ln(V). Random weights score 1 or more; the demo model 0.45.
TRAINED_SHARE = Threshold(0.75, "a model worse than this has not learnt the text's language")

# Below this the weights are kept so well that int8 activations cost more, whatever the runtime.
SHARE_FLOOR = Threshold(2e-3, "a third of less would be below the rounding of int8 activations")


# Attention in float16 has 11 bits: 1e-4 was measured in the first layer, and it grows.
_FLOAT16_STEP = Threshold(5e-3, "keys, values and attention are float16")


def thresholds_for(target: str, kv_dtype: str = "float32") -> TargetThresholds:
    """Return a target's limits, for a KV cache of a type.

    Raises:
        BundleError: no target of that name is known.
    """
    if target not in _TARGETS:
        message = f"no limits are known for the target {target!r}; known: {', '.join(_TARGETS)}"
        raise BundleError(message, "use the version of llama-export that wrote the bundle")
    limits = _TARGETS[target]
    if kv_dtype == "float32":
        return limits
    return replace(limits, step_rel_rms=_FLOAT16_STEP, steps_stay_clean=False)
