"""The figures of a campaign as a table, and its failures with the command that shows each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fuzzing.campaign import Tally
from fuzzing.judge import FAILURES, FINE


def table(tallies: Mapping[str, Tally]) -> str:
    """Lay the figures out as a Markdown table with a row a surface."""
    kinds = (*FINE, *FAILURES)
    lines = ["| " + " | ".join(("surface", "tried", *kinds, "slowest, s", "ms a case")) + " |"]
    lines.append("|" + "---|" * (len(kinds) + 4))
    whole = Tally()
    for name, tally in sorted(tallies.items()):
        lines.append(_row(name, tally))
        whole.add(Tally(Counter(tally.kinds), tally.slowest_s, tally.wall_s))
    return "\n".join((*lines, _row("**all**", whole)))


def _row(name: str, tally: Tally) -> str:
    tried = sum(tally.kinds.values())
    counts = [str(tally.kinds[kind]) for kind in (*FINE, *FAILURES)]
    each_ms = 1000 * tally.wall_s / max(1, tried)
    return (
        "| "
        + " | ".join((name, str(tried), *counts, f"{tally.slowest_s:.1f}", f"{each_ms:.0f}"))
        + " |"
    )
