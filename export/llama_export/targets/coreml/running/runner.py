"""What runs a package, as the session sees it: the evaluator is one, the real Core ML another.

It knows how a function is called; it does not know what a package computes, or who runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

Array = NDArray[Any]


class CacheState(Protocol):
    """The caches of one conversation that a package keeps inside; all zeros at first."""

    def read_state(self, name: str) -> Array:
        """Return a copy of a cache, in float16 or float32."""

    def write_state(self, name: str, value: Array) -> None:
        """Replace a cache by a copy of an array of its shape, in float16 or float32."""


StateT = TypeVar("StateT", bound=CacheState)


class Runner(Protocol[StateT]):
    """A loaded package; conversations share it, and its weights."""

    @property
    def mode(self) -> str:
        """The arithmetic: "fp32" where caches are not rounded to float16, else "fp16"."""

    def make_state(self) -> StateT:
        """Return new caches, for a package that keeps them inside."""

    def predict(
        self,
        inputs: Mapping[str, Array],
        state: StateT | None = None,
        *,
        function: str | None = None,
    ) -> Mapping[str, Array]:
        """Call a function once.

        Args:
            inputs: int32 and float16 arrays by name.
            state: caches of the conversation, which the call changes.
            function: name of the function; None for the only one.

        Returns:
            The outputs by name, in float16 or float32.
        """
