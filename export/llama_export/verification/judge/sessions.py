"""Turn what a conversation did into rows: portions, rewinding, two at once, the context's end.

It knows limits and rows; it runs nothing.
"""

from __future__ import annotations

from llama_export.targets.limits import Limits
from llama_export.verification.judge.relative import relative_difference
from llama_export.verification.measure.behaviour import ContextEnd
from llama_export.verification.measure.exact import Exact
from llama_export.verification.rows import Row, judged, unchecked

_SESSION = "session"
_SHOWN_SIZES = 6


def session_rows(limits: Limits, exact: Exact) -> list[Row]:
    """Judge the artifact against itself, and against eager where the context ends."""
    same = limits.same_rel_rms
    at_once, side_by_side = exact.at_once, exact.conversations.side_by_side
    return [
        judged(
            _SESSION,
            "prefill_equals_decode",
            "one prefill against single steps",
            relative_difference(limits, at_once),
            same.value,
            at_once.fault or same.reason,
        ),
        _portions_row(limits, exact),
        judged(
            _SESSION,
            "rewind",
            "logits that differ when a rewound session repeats itself",
            exact.conversations.rewound,
            0,
            "the same calls give the same bits",
        ),
        judged(
            _SESSION,
            "side_by_side",
            "two conversations in turns against each alone",
            relative_difference(limits, side_by_side),
            same.value,
            side_by_side.fault or "they share the weights and nothing else",
        ),
        *_end_rows(limits, exact.end),
    ]


def _portions_row(limits: Limits, exact: Exact) -> Row:
    worst = max(exact.portions, key=lambda each: relative_difference(limits, each.metrics))
    ways = "; ".join(_sizes(each.sizes) for each in exact.portions)
    note = f"{sum(worst.sizes)} tokens in portions of {ways}; worst of {_sizes(worst.sizes)}"
    return judged(
        _SESSION,
        "chunked_prefill",
        "odd portions against one prefill",
        relative_difference(limits, worst.metrics),
        limits.same_rel_rms.value,
        worst.metrics.fault or note,
    )


def _sizes(sizes: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, sizes[:_SHOWN_SIZES]))
    return f"{shown}, ..." if len(sizes) > _SHOWN_SIZES else shown


def _end_rows(limits: Limits, end: ContextEnd | None) -> list[Row]:
    last = ("context_end", "relative difference of the logits at the context's last position")
    beyond = ("beyond_context", "faults when one token more than the context is given")
    if end is None:
        note = "the quick check does not fill a context this large; leave --quick out"
        return [unchecked(_SESSION, *key_and_name, note) for key_and_name in (last, beyond)]
    rows = []
    if end.lowering is None:
        note = "no quantised weights; what it computes there is not proved"
        rows.append(unchecked(_SESSION, *last, note))
    else:
        note = end.lowering.fault or f"position {end.positions - 1}, every slot of the cache in use"
        found, limit = relative_difference(limits, end.lowering), limits.same_rel_rms.value
        rows.append(judged(_SESSION, *last, found, limit, note))
    note = "it is refused, and the session goes on as if nothing had been asked"
    faults = [end.beyond] if end.beyond else []
    if end.after:
        faults.append(f"afterwards {end.after} logits of the last position are others")
    rows.append(judged(_SESSION, *beyond, len(faults), 0, "; ".join(faults) or note))
    return rows
