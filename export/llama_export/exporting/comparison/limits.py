"""How much a comparison reads, and what a recommendation must keep to.

It is data, known before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_export.errors import UsageError

FEWEST_POSITIONS = 128
"""Below that nothing tells how a figure spreads."""
RECIPE_POSITIONS, BUNDLE_POSITIONS = 8192, 1000
"""Most positions that are read of each text where nobody says how many."""
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Limit:
    """What a recipe must keep to; one of the two.

    Args:
        most_kl: most nats, mean and error together.
        most_bytes: most stored bytes of all weights.
    """

    most_kl: float | None = None
    most_bytes: int | None = None

    def __post_init__(self) -> None:
        if (self.most_kl is None) == (self.most_bytes is None):
            message = "--recommend: expected one of --max-kl and --budget-mb"
            raise UsageError(message, "the smallest within a KL, or the best within a size")

    def __str__(self) -> str:
        if self.most_bytes is not None:
            return f"at most {self.most_bytes / _MEGABYTE:g} MB"
        return f"at most {self.most_kl:g} nats, error included"
