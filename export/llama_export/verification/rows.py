"""Hold a verification's result: rows in sections, the figures behind them, and their form as JSON.

A row's `passed` is None where nothing is judged: a figure for information, or a check that could
not be made; its note says which. It knows no bundle, measures nothing and lays nothing out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llama_export.verification.estimate import Estimate
from llama_export.verification.findings import Divergence, PlotData
from llama_export.verification.identity import Identity

FORMAT_VERSION = 4
WARNING = "warning: "

# What a report says in one word, and what a check may lack.
PASSED, FAILED, NOT_PROVED = "passed", "failed", "not proved"
WEIGHTS, CHECKPOINT = "weights", "checkpoint"
NO_WEIGHTS, NO_CHECKPOINT = "no quantised weights", "no reference checkpoint"
LACKING: Mapping[str, str] = {NO_WEIGHTS: WEIGHTS, NO_CHECKPOINT: CHECKPOINT}

SECTIONS: Mapping[str, str] = {
    "structure": "Structure: the files, and the weights inside the artifact",
    "files": "Files: what clients read beside the artifact, and what the manifest says",
    "lowering": "Lowering error: artifact against eager, same quantised weights",
    "session": "Sessions: prefill, decode, rewinding, the end of the context",
    "activation": "Activation rounding: the runtime's faster arithmetic",
    "quantisation": "Quantisation error: quantised weights against the checkpoint",
    "device": "On a phone: the artifact there against the machine that exported it",
}


@dataclass(frozen=True)
class Row:
    """One line of a report.

    Args:
        section: key of `SECTIONS`.
        key: stable name for programs.
        name: name for people.
        value: measured figure; None when nothing was measured.
        threshold: upper limit; None when nothing is judged.
        passed: verdict; None when nothing is judged.
        note: remark on what was found, or on what is not proved.
        wants: `WEIGHTS` or `CHECKPOINT`, which a check that was not made would need; empty for a
            check that was made, and for one that no such thing would make.
        error: standard error of the value; None where it has none.
        positions: number of positions that the value is a mean of; None where it is no mean.
    """

    section: str
    key: str
    name: str
    value: float | None
    threshold: float | None
    passed: bool | None
    note: str = ""
    wants: str = ""
    error: float | None = None
    positions: int | None = None

    @property
    def warns(self) -> bool:
        """Return whether the check passed, with a value that a reader should know of."""
        return self.passed is True and self.note.startswith(WARNING)

    @property
    def made(self) -> bool:
        """Return whether the check was made; the note of one that was not says why."""
        return self.value is not None or self.threshold is not None

    def to_json(self) -> dict[str, Any]:
        """Return the row's fields except for its section."""
        return {
            "key": self.key,
            "name": self.name,
            "value": _finite(self.value),
            "error": _finite(self.error),
            "n": self.positions,
            "threshold": _finite(self.threshold),
            "passed": self.passed,
            "note": self.note,
            "wants": self.wants or None,
        }


@dataclass(frozen=True)
class VerifyReport:
    """Everything that a verification found.

    Args:
        target: name of the bundle's target.
        model: name of the model.
        settings: conditions of the measurement: positions, exact_steps, quick, text and its sha256.
        rows: lines of the report.
        measurements: figures in full, by comparison.
        plot_data: figures behind the plots; None when none were kept.
        divergence: place where the artifact first goes wrong; None when nothing was looked for or
            found.
        identity: what was verified, with what, and on which machine; None when nobody said.
    """

    target: str
    model: str
    settings: Mapping[str, int | bool | str]
    rows: tuple[Row, ...]
    measurements: Mapping[str, Mapping[str, float | int | str | None]]
    plot_data: PlotData | None = None
    divergence: Divergence | None = None
    identity: Identity | None = None

    def __repr__(self) -> str:
        failed = ", ".join(row.key for row in self.failures[:3])
        verdict = f"{self.verdict} ({failed})" if failed else self.verdict
        counts = f"{len(self.rows)} rows, {len(self.unmade)} not checked"
        return f"<VerifyReport of {self.model} ({self.target}): {verdict}, {counts}>"

    @property
    def verdict(self) -> str:
        """Return `FAILED` when a check failed, `NOT_PROVED` when one lacks something, or `PASSED`.

        A check that this target cannot make at all is listed, and takes nothing from the verdict.
        """
        if self.failures:
            return FAILED
        judged = any(row.passed is not None for row in self.rows)
        return PASSED if judged and not self.missing else NOT_PROVED

    @property
    def passed(self) -> bool:
        """Return whether everything that was asked is proved."""
        return self.verdict == PASSED

    @property
    def missing(self) -> tuple[str, ...]:
        """Return what was not at hand and would be needed: `WEIGHTS`, `CHECKPOINT`, or both."""
        wanted = {row.wants for row in self.rows}
        return tuple(each for each in (WEIGHTS, CHECKPOINT) if each in wanted)

    @property
    def failures(self) -> tuple[Row, ...]:
        """Return the rows that failed."""
        return tuple(row for row in self.rows if row.passed is False)

    @property
    def warnings(self) -> tuple[Row, ...]:
        """Return the rows that passed with a warning."""
        return tuple(row for row in self.rows if row.warns)

    @property
    def unmade(self) -> tuple[Row, ...]:
        """Return the rows of checks that were not made."""
        return tuple(row for row in self.rows if not row.made)

    def row(self, key: str) -> Row:
        """Return the row with a key.

        Raises:
            KeyError: the report has no such row.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, always with the same keys in the same order.

        `report/report.schema.json` describes them. A figure that is not finite is None.
        """
        return {
            "format_version": FORMAT_VERSION,
            "passed": self.passed,
            "verdict": self.verdict,
            "target": self.target,
            "model": self.model,
            "identity": None if self.identity is None else self.identity.to_json(),
            "settings": dict(self.settings),
            "sections": {
                section: [row.to_json() for row in self.rows if row.section == section]
                for section in SECTIONS
            },
            "measurements": {
                name: {key: _finite(figure) for key, figure in figures.items()}
                for name, figures in self.measurements.items()
            },
            "divergence": None if self.divergence is None else _divergence_json(self.divergence),
            "series": None if self.plot_data is None else _plot_data_json(self.plot_data),
        }


class VerificationFailedError(Exception):
    """A fresh artifact failed its verification and was not published.

    This is a result (exit code 1 of the command line), and neither the input's fault nor the
    caller's: so it is no `LlamaExportError`. A traceback of Python 3.11 and later lists the first
    failures below the message.

    Args:
        target: name of the target.
        report: the verification.
    """

    def __init__(self, target: str, report: VerifyReport) -> None:
        super().__init__(f"the {target} artifact failed its verification")
        self.target = target
        self.report = report
        # What `add_note` does, which Python 3.10 does not have yet.
        self.__notes__ = [f"failed: {row.name}; {row.note}" for row in report.failures[:5]]


def judged(
    section: str, key: str, name: str, value: float | Estimate, threshold: float, note: str = ""
) -> Row:
    """Build a row that passes when the value is at most the threshold; a NaN does not pass."""
    row = informed(section, key, name, value, note)
    passed = row.value is not None and row.value <= threshold
    return replace(row, threshold=threshold, passed=bool(passed))


def warned(
    section: str, key: str, name: str, value: float | Estimate, threshold: float, note: str
) -> Row:
    """Build a row that passes, with a note that begins with a warning."""
    return judged(section, key, name, value, threshold, f"{WARNING}{note}")


def informed(section: str, key: str, name: str, value: float | Estimate, note: str = "") -> Row:
    """Build a row that is only for information."""
    if not isinstance(value, Estimate):
        return Row(section, key, name, value, None, None, note)
    error = value.error if math.isfinite(value.error) else None
    return Row(
        section, key, name, value.value, None, None, note, error=error, positions=value.count
    )


def unchecked(section: str, key: str, name: str, note: str) -> Row:
    """Build a row for a check that could not be made; the note says what is not proved.

    Where something is missing that would make the check, the note begins with a key of `LACKING`.
    """
    wants = next((want for lack, want in LACKING.items() if note.startswith(lack)), "")
    return Row(section, key, name, None, None, None, f"{_UNCHECKED}{note}", wants)


def format_value(value: float | None) -> str:
    """Format a figure with at most four digits; None as nothing."""
    if value is None:
        return ""
    if value == int(value) if math.isfinite(value) else False:
        return str(int(value))
    return f"{value:.4g}" if abs(value) >= 1e-3 or not math.isfinite(value) else f"{value:.1e}"


def estimate_of(row: Row) -> Estimate | None:
    """Return a row's figure with its error, NaN where it has none; None: nothing was measured."""
    if row.value is None:
        return None
    return Estimate(row.value, math.nan if row.error is None else row.error, row.positions)


def format_estimate(estimate: Estimate) -> str:
    """Format a figure to the digit that its error allows, or with four digits without one."""
    return estimate.shown() if estimate.error > 0 else format_value(estimate.value)


def format_row_value(row: Row) -> str:
    """Format a row's figure with its error; nothing where nothing was measured."""
    estimate = estimate_of(row)
    return "" if estimate is None else format_estimate(estimate)


def report_text(report: VerifyReport) -> str:
    """Format a report as JSON for a file or a pipe: a list of numbers stays on one line."""
    return _json_lines(report.to_json(), "") + "\n"


def _json_lines(value: object, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        items = (f"{json.dumps(key)}: {_json_lines(item, deeper)}" for key, item in value.items())
        opening, closing = "{}"
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = (_json_lines(item, deeper) for item in value)
        opening, closing = "[]"
    else:
        return json.dumps(value, allow_nan=False)
    separator = f",\n{deeper}"
    return f"{opening}\n{deeper}{separator.join(items)}\n{indent}{closing}"


def _finite(value: object) -> object:
    """Return the value, or None for what JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: float) -> float | None:
    """Round to six digits: more than a plot can show, and a third of the bytes."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _divergence_json(divergence: Divergence) -> dict[str, Any]:
    return {
        "layer": divergence.layer,
        "operator": divergence.operator,
        "value": divergence.value,
        "error": _finite(float(divergence.error)),
        "limit": _finite(float(divergence.limit)),
        "detail": divergence.detail,
        "others": list(divergence.others),
    }


def _plot_data_json(plot_data: PlotData) -> dict[str, Any]:
    return {
        "kl_by_position": {
            name: [_short(value) for value in values]
            for name, values in plot_data.kl_by_position.items()
        },
        "tensors": [
            {
                "name": tensor.name,
                "bits": tensor.bits,
                "sqnr_db": None if tensor.sqnr_db is None else _short(tensor.sqnr_db),
                "size_bytes": tensor.size_bytes,
            }
            for tensor in plot_data.tensors
        ],
        "logit_scatter": [[_short(eager), _short(got)] for eager, got in plot_data.logit_scatter],
        "sizes_bytes": {name: int(size) for name, size in plot_data.sizes_bytes.items()},
        "memory_bytes": {name: int(size) for name, size in plot_data.memory_bytes.items()},
    }


_UNCHECKED = "not checked: "
