"""Judge what a method gained over plain rounding, and say what it was calibrated on.

Only a calibrated method is judged: a search of scales gains little by nature, and what has no
groups has nothing to gain. It knows figures and rows; it runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from llama_export.targets.limits import Limit
from llama_export.verification.judge.terms import can_judge, why_not_judged
from llama_export.verification.measure.gain import Gain, OnText
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import (
    NO_CHECKPOINT,
    Row,
    informed,
    judged,
    unchecked,
    warned,
)
from llama_quantize.printable import shown_name
from llama_quantize.recipe import METHODS_WITHOUT_INPUTS, quality_and_method

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_quantize.checkpoint.weights import QuantizedWeights

MOST_RATIO = Limit(0.9, "a search of scales alone reaches that, with no calibration")
LITTLE_GAIN = Limit(0.6, "calibrated int4 was at 0.3 to 0.5 on texts that a model knows")
# Below this the table's own rounding is a good part of the figure.
_FLOOR = Limit(2e-3, "too little to gain from")

_SECTION = "quantisation"
_KEY, _NAME = "gain_over_rounding", "KL over that of plain rounding into the same forms"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNT = re.compile(r"[0-9]{1,12}")


def gain_rows(
    gain: Gain | None,
    shipped: Shipped,
    methods: Collection[str],
    *,
    config: LlamaConfig,
    quick: bool,
) -> list[Row]:
    """Judge a method's KL over that of plain rounding, on two texts.

    Args:
        gain: comparison with plain rounding; None where it was not measured.
        shipped: comparisons of the artifact as it ships, which tell whether the model is trained.
        methods: methods of the linears that were rounded in groups.
        config: shape of the model.
        quick: whether the measurements are those of the short version, which leaves this out.
    """
    names = _calibrated(methods)
    if gain is None:
        if quick or not names:
            return []
        note = f"{NO_CHECKPOINT}; that {', '.join(names)} gained over plain rounding is not proved"
        return [unchecked(_SECTION, _KEY, _NAME, note)]
    rows = [
        _ratio_row(_KEY, _NAME, gain.read, shipped, config, calibrated=bool(names)),
        _ratio_row(
            f"{_KEY}_second",
            f"the same on {gain.second.text}",
            gain.second,
            shipped,
            config,
            calibrated=bool(names),
        ),
    ]
    rounded = gain.read.rounded
    if rounded.fault:
        return rows
    kl = "mean KL of plain rounding into the same forms, nats"
    top1 = "same most likely token after plain rounding"
    return [
        informed(_SECTION, "kl_rounding", kl, rounded.kl_estimate),
        informed(_SECTION, "top1_rounding", top1, rounded.top1_estimate),
        *rows,
    ]


def calibration_rows(weights: QuantizedWeights | None, methods: Collection[str]) -> list[Row]:
    """Name the calibrated methods, and the text that they were calibrated on by its hash."""
    names = _calibrated(methods)
    if weights is None or not names:
        return []
    said: Mapping[str, str] = weights.calibration or {}
    tokens, sha256 = said.get("tokens", ""), said.get("ids_sha256", "")
    key, name = "calibration", f"tokens that {', '.join(names)} was calibrated on"
    if _COUNT.fullmatch(tokens) and _SHA256.fullmatch(sha256):
        note = f"{_whose(said)}; their ids have the sha256 {sha256}"
        return [informed(_SECTION, key, name, int(tokens), note)]
    note = "the weights' record does not name them"
    return [unchecked(_SECTION, key, name, note)]


def _whose(said: Mapping[str, str]) -> str:
    """Name who wrote the windows, as far as the record tells."""
    windows = said.get("user_windows", "0")
    if windows == "0" or not _COUNT.fullmatch(windows):
        return "the model's own text"
    return f"the model's own text, and {windows} windows of a user's"


def _calibrated(methods: Collection[str]) -> tuple[str, ...]:
    found = dict.fromkeys(name for name in methods if name not in METHODS_WITHOUT_INPUTS)
    return tuple(quality_and_method(shown_name(each)) for each in found)


def _ratio_row(
    key: str,
    name: str,
    found: OnText,
    shipped: Shipped,
    config: LlamaConfig,
    *,
    calibrated: bool,
) -> Row:
    limit = MOST_RATIO.value
    if found.fault:
        return judged(_SECTION, key, name, float("inf"), limit, found.fault)
    ratio, note = found.ratio, _figures(found)
    if not calibrated:
        return informed(_SECTION, key, name, ratio, f"{note}; the method is not calibrated")
    if max(found.weights.kl_mean, found.rounded.kl_mean) < _FLOOR.value:
        return informed(_SECTION, key, name, ratio, f"{note}; {_FLOOR.reason}")
    if not can_judge(shipped, config, ratio.value <= limit):
        return informed(_SECTION, key, name, ratio, f"{why_not_judged(shipped)}; {note}")
    if LITTLE_GAIN.value < ratio.value <= limit:
        little = f"little gained: {note}; {LITTLE_GAIN.reason}"
        return warned(_SECTION, key, name, ratio, limit, little)
    return judged(_SECTION, key, name, ratio, limit, f"{note}; {MOST_RATIO.reason}")


def _figures(found: OnText) -> str:
    ours, plain = found.weights, found.rounded
    return (
        f"KL {ours.kl_estimate.shown()} against {plain.kl_estimate.shown()}, same token "
        f"{ours.top1_estimate.shown(100)}% against {plain.top1_estimate.shown(100)}%, over "
        f"{ours.positions} positions"
    )
