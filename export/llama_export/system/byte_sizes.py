"""Sizes in words. It knows decimal units, and nothing of what is measured."""

from __future__ import annotations

_MB = 1_000_000


def format_bytes(size_bytes: float) -> str:
    """Render a size in decimal units, as file managers and phone shops do."""
    if size_bytes >= 1000 * _MB:
        return f"{size_bytes / _MB / 1000:.2f} GB"
    if size_bytes >= _MB:
        return f"{size_bytes / _MB:.1f} MB"
    return f"{size_bytes / 1000:.1f} kB"
