"""What an artifact's graph is made of, and the way that a token id takes through it.

Plain values between a target, which reads its own format, and the verification, which judges. It
knows no format, no runtime and no limits.

Shapes: n ids, E hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_export.llama.intermediates import FloatArray

# Numbers are stored as float32 at best.
_SAME = 1e-6


@dataclass(frozen=True)
class Attribute:
    """A setting of an operator that decides what it computes.

    Args:
        operator: module path of the operator, or its name in the artifact.
        name: name of the setting, such as `epsilon`.
        found: value in the artifact.
        expected: value that the model wants there.
    """

    operator: str
    name: str
    found: float | str
    expected: float | str

    @property
    def is_right(self) -> bool:
        """Return whether the two values are the same as far as they can be stored."""
        if isinstance(self.found, str) or isinstance(self.expected, str):
            return self.found == self.expected
        return math.isclose(self.found, self.expected, rel_tol=_SAME)


@dataclass(frozen=True)
class Wiring:
    """The operators of an artifact, followed from its results back to its inputs.

    Args:
        strangers: sentences on operators that are not a Llama's, or not where a Llama has them.
        operators: number of operators that were followed.
        attributes: settings of those operators.
    """

    strangers: tuple[str, ...]
    operators: int
    attributes: tuple[Attribute, ...]


class OtherGraphError(Exception):
    """The graph is another one from here on.

    Args:
        place: where in a Llama.
        what: what was found there, and expected.
    """

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}")


class Lookup(Protocol):
    """The way from token ids to the first layer, cut out of an artifact and ready to run."""

    def rows(self, input_ids: Sequence[int]) -> Mapping[str, FloatArray]:
        """Look ids up, in as many calls as the artifact needs.

        Args:
            input_ids: ids of the vocabulary, at least one.

        Returns:
            What each consumer in the first layer gets, float32 `[n, E]`, by the consumer's name.

        Raises:
            BundleError: the artifact cannot be run.
        """

    def close(self) -> None:
        """Let go of the artifact."""
