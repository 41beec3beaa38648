"""Judge what a phone measured against a bundle's golden data: each figure beside its limit.

KL is taken over the golden answer's places and the rest as one. It knows no runtime and no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from llama_export.verification.golden.device_report import DeviceReport, Measured
from llama_export.verification.golden.golden import SUM_SPREAD, Answer, Golden
from llama_export.verification.identity import Identity
from llama_export.verification.rows import Row, VerifyReport, judged
from llama_quantize.printable import shown_name

DEVICE = "device"
_Doubles = npt.NDArray[np.float64]
_LEAST = 1e-30


def judge_report(
    golden: Golden, report: DeviceReport, model: str, identity: Identity | None = None
) -> VerifyReport:
    """Return a phone's report judged.

    Args:
        golden: golden data of the bundle.
        report: what the phone measured.
        model: name of the model.
        identity: what the bundle is, and what judges the phone; None where there is no bundle.
    """
    return VerifyReport(
        target=golden.target,
        model=model,
        settings={
            **{f"device_{key}": value for key, value in report.device.items()},
            "runtime": report.runtime,
            "golden_runtime": shown_name(golden.runtime, 120),
            "positions": len(report.positions),
        },
        rows=tuple(golden_rows(golden, report.positions, DEVICE)),
        measurements={},
        identity=identity,
    )


def golden_rows(golden: Golden, measured: Sequence[Measured], section: str) -> list[Row]:
    """Judge what was measured after the golden calls.

    Args:
        golden: golden data.
        measured: measurements in the order of the calls.
        section: section of the report that the rows belong to.
    """
    row = _rows_in(section)
    answers = golden.positions
    missing = _missing(answers, measured)
    name = "golden calls that were not measured, or not in their order"
    rows = [row("golden_calls", name, len(missing), 0, _first(answers, missing))]
    if missing:
        return rows
    unsound = [number for number, each in enumerate(measured) if not _adds_up(each)]
    name = "calls whose probabilities are not finite, or do not add up to 1"
    rows.append(row("golden_sums", name, len(unsound), 0, _first(answers, unsound)))
    kl = [_kl(answer, each) for answer, each in zip(answers, measured, strict=True)]
    swapped = [
        number
        for number, (answer, each) in enumerate(zip(answers, measured, strict=True))
        if _is_swapped(answer, each, golden.limits.margin)
    ]
    limits = golden.limits
    beyond = sorted({*swapped, *unsound, *(n for n, x in enumerate(kl) if x > limits.kl_worst)})
    mean = sum(kl) / len(kl)
    note = f"over {len(kl)} calls; both round, each in its own way"
    rows.append(
        row("golden_kl_mean", "mean KL from the golden data, nats", mean, limits.kl_mean, note)
    )
    note = _first(answers, beyond) or f"after {_named(answers[int(np.argmax(kl))])}"
    name = "KL of the worst call, nats"
    rows.append(row("golden_kl_worst", name, max(kl), limits.kl_worst, note))
    name = f"calls with another likeliest token, of those with a margin above {limits.margin:g}"
    rows.append(row("golden_top1", name, len(swapped), 0, _first(answers, swapped)))
    return rows


def _rows_in(section: str) -> Callable[[str, str, float, float, str], Row]:
    return lambda key, name, value, limit, note: judged(section, key, name, value, limit, note)


def _missing(answers: Sequence[Answer], measured: Sequence[Measured]) -> list[int]:
    """List the calls without a measurement that fits them; more than were asked for fit none."""
    if len(measured) > len(answers):
        return list(range(len(answers)))
    return [
        number
        for number, answer in enumerate(answers)
        if number >= len(measured) or not _fits(answer, measured[number])
    ]


def _fits(answer: Answer, measured: Measured) -> bool:
    return measured.at == answer.call.at and len(measured.logprobs) == len(answer.top)


def _adds_up(measured: Measured) -> bool:
    if any(value is None for value in measured.logprobs) or measured.best is None:
        return False
    logprobs = _measured_logprobs(measured)
    total = float(np.exp(np.minimum(logprobs, 1.0)).sum())
    return abs(total - 1) <= SUM_SPREAD


def _measured_logprobs(measured: Measured) -> _Doubles:
    values = [
        *measured.logprobs,
        *([] if measured.rest_logprob is None else [measured.rest_logprob]),
    ]
    return np.array([-math.inf if value is None else value for value in values])


def _kl(answer: Answer, measured: Measured) -> float:
    """Return the KL from the golden answer, in nats; infinite where nothing can be compared."""
    rest = [] if answer.rest_logprob is None else [answer.rest_logprob]
    expected = np.array([*(logprob for _, logprob in answer.top), *rest])
    found = _measured_logprobs(measured)
    if not _adds_up(measured) or len(found) != len(expected):
        return math.inf
    # Both are rounded, so neither adds up to 1 exactly.
    expected, found = (np.exp(x) / np.exp(x).sum() for x in (expected, found))
    ratio = np.log(np.maximum(expected, _LEAST) / np.maximum(found, _LEAST))
    return max(float((expected * ratio).sum()), 0.0)


def _is_swapped(answer: Answer, measured: Measured, margin: float) -> bool:
    (best, first), *others = answer.top
    second = others[0][1] if others else -math.inf
    return first - second > margin and measured.best != best


def _first(answers: Sequence[Answer], wrong: Sequence[int]) -> str:
    return f"first out of bounds: {_named(answers[wrong[0]])}, call {wrong[0] + 1}" if wrong else ""


def _named(answer: Answer) -> str:
    call = answer.call
    what = (
        f"position {call.at}" if call.first == call.at else f"positions {call.first} to {call.at}"
    )
    return f"{what} of the {call.text} text"
