"""Test vectors of golden data: a small golden.json, phones' reports on it, and their judgement.

The model is arithmetic, so that every language computes the same logits: the state is 0; each row
of the cache makes it `(31 * state + (token + 1) * (position + 7)) % 65521`; the logit of place v of
64 is `((state * (v + 1) * 40503) % 65521 // 16) / 1024`. The phones are that model with a fault
each. The figures are those of the code that judges real phones; this module adds none of its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llama_export.llama.intermediates import FloatArray
from llama_export.verification.golden.compare import judge_report
from llama_export.verification.golden.device_report import parse_device_report
from llama_export.verification.golden.golden import Golden, GoldenLimits
from llama_export.verification.golden.record import log_probabilities, record
from llama_export.verification.samples import Text

FORMAT_VERSION = 1
VOCABULARY, _MODULUS = 64, 65521
_CONTEXT = 16
_LIMITS = GoldenLimits(kl_mean=0.002, kl_worst=0.02, margin=0.05)
_DIGITS = 5
_ROWS = ("golden_calls", "golden_sums", "golden_kl_mean", "golden_kl_worst", "golden_top1")


class RowModel:
    """A session whose logits depend on every token and its position."""

    def __init__(self) -> None:
        self.max_context = _CONTEXT
        self.rows: list[tuple[int, int]] = []

    def rewind(self, position: int) -> None:
        """Forget the rows from a position on."""
        del self.rows[position:]

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return the logits `[V]` after the last of them."""
        for token in input_ids:
            self.rows.append((token, len(self.rows)))
        return self.logits()

    def logits(self) -> FloatArray:
        """Return the logits `[V]` of all rows."""
        state = 0
        for token, position in self.rows:
            state = (31 * state + (token + 1) * (position + 7)) % _MODULUS
        places = ((state * (v + 1) * 40503) % _MODULUS // 16 for v in range(VOCABULARY))
        return np.array([place / 1024 for place in places], np.float32)


class OffByOne(RowModel):
    """Single steps overwrite the last row."""

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens, a single one in the last one's place."""
        if len(input_ids) == 1 and self.rows:
            self.rows.pop()
        return super().prefill(input_ids)


class StaleRow(RowModel):
    """After a rewind the first row stays what it was."""

    def __init__(self) -> None:
        super().__init__()
        self._old: tuple[int, int] | None = None

    def rewind(self, position: int) -> None:
        """Forget all rows from a position on but one."""
        self._old = self.rows[position] if 0 < position < len(self.rows) else None
        super().rewind(position)

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens, and put the old row in the first one's place afterwards."""
        place = len(self.rows)
        logits = super().prefill(input_ids)
        if self._old is not None:
            self.rows[place] = self._old
        return logits


class SwappedHead(RowModel):
    """Neighbouring places of the logits are exchanged."""

    def logits(self) -> FloatArray:
        """Return the logits `[V]`, in pairs the wrong way round."""
        return super().logits().reshape(-1, 2)[:, ::-1].reshape(-1)


class WrongScale(RowModel):
    """Logits are a quarter too large."""

    def logits(self) -> FloatArray:
        """Return the logits `[V]`, times 1.25."""
        return super().logits() * np.float32(1.25)


class OtherRounding(RowModel):
    """Every third logit is a little larger, as another processor's rounding has it."""

    def logits(self) -> FloatArray:
        """Return the logits `[V]` with a 64th added to some."""
        added = np.array([1 / 64 if v % 3 == 0 else 0.0 for v in range(VOCABULARY)], np.float32)
        return super().logits() + added


PHONES: Mapping[str, type[RowModel]] = {
    "right": RowModel,
    "another rounding": OtherRounding,
    "positions off by one": OffByOne,
    "a stale row": StaleRow,
    "a swapped head": SwappedHead,
    "a wrong scale": WrongScale,
}


def golden_vectors() -> Mapping[str, Any]:
    """Return the vectors of golden data."""
    token_ids = tuple(number * number % VOCABULARY for number in range(3, 50))
    text = Text("squares", (), token_ids, sha256="")
    # A session has more than the calls need.
    session: Any = RowModel()
    golden = record(session, text, _LIMITS, "onnx", "arithmetic")
    if golden is None:
        message = "the context is too short for golden data"
        raise RuntimeError(message)
    reports = [(name, _report(kind(), golden)) for name, kind in PHONES.items()]
    reports += _spoiled(reports[0][1])
    return {
        "format_version": FORMAT_VERSION,
        "golden": json.loads(golden.to_bytes()),
        "logits": [_measurement(golden, number) for number in (0, 1, 11, 19)],
        "reports": [_judged(golden, name, report) for name, report in reports],
    }


def _measured(golden: Golden, number: int, logits: FloatArray) -> dict[str, Any]:
    answer = golden.positions[number]
    logprobs = log_probabilities(logits)
    places = [place for place, _ in answer.top]
    rest = math.log(float(np.exp(np.delete(logprobs, places)).sum()))
    return {
        "at": answer.call.at,
        "logprobs": [round(float(logprobs[place]), _DIGITS) for place in places],
        "rest_logprob": round(rest, _DIGITS),
        "best": int(logprobs.argmax()),
    }


def _measurement(golden: Golden, number: int) -> dict[str, Any]:
    model = RowModel()
    for answer in golden.positions[: number + 1]:
        model.rewind(answer.call.first)
        logits = model.prefill(golden.ids_of(answer.call))
    return {
        "name": f"call {number}",
        "logits": [float(each) for each in logits],
        "top": [list(each) for each in golden.positions[number].top],
        **_measured(golden, number, logits),
    }


def _report(model: RowModel, golden: Golden) -> dict[str, Any]:
    positions = []
    for number, answer in enumerate(golden.positions):
        model.rewind(answer.call.first)
        logits = model.prefill(golden.ids_of(answer.call))
        positions.append(_measured(golden, number, logits))
    return {
        "format_version": 1,
        "device": {"model": "arithmetic"},
        "runtime": "arithmetic",
        "manifest_sha256": "0" * 64,
        "positions": positions,
    }


def _spoiled(right: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return reports that no right phone writes, whatever its model."""

    def changed(number: int, **values: object) -> dict[str, Any]:
        positions = [dict(each) for each in right["positions"]]
        positions[number] |= values
        return {**right, "positions": positions}

    return [
        ("one call less", {**right, "positions": right["positions"][:-1]}),
        ("a number that is none", changed(3, rest_logprob=None)),
        ("no likeliest place", changed(4, best=None)),
    ]


def _judged(golden: Golden, name: str, report: dict[str, Any]) -> dict[str, Any]:
    found = judge_report(golden, parse_device_report(report, name), "vectors")
    rows = {row.key: row for row in found.rows}
    figures = {
        key: {
            # Two machines' exponentials differ in the last bits.
            "value": _figure(rows[key].value),
            "passed": rows[key].passed,
        }
        for key in _ROWS
        if key in rows
    }
    notes = (re.search(r"^first out of bounds: .*call (\d+)$", row.note) for row in found.rows)
    first = min((int(each[1]) - 1 for each in notes if each), default=None)
    return {
        "name": name,
        "passed": found.passed,
        "first": first,
        "rows": figures,
        "report": report,
    }


def _figure(value: float | None) -> float | None:
    return round(float(value), 6) if value is not None and math.isfinite(value) else None
