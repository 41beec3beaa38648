"""Times as people say them: in seconds, minutes or hours, and no more exact than they are known."""

from __future__ import annotations


def shown_duration(seconds: float) -> str:
    """Write a time that is about right: `40 s`, `28 min`, `2.1 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
