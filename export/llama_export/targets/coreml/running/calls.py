"""The calls that append tokens to a conversation: what each is given, and what it gives back.

Pure functions. They know the signatures of a package; they run nothing and keep no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.coreml.options import DECODE, PREFILL
from llama_export.targets.coreml.running.runner import Array
from llama_export.targets.coreml.signature import (
    CAUSAL_MASK,
    INPUT_IDS,
    LENGTH,
    LOGITS,
    POSITION,
)

# Of one call of flexible shapes: the logits of every row come out, 256 kB a row at 1B.
CHUNK_TOKENS = 256


@dataclass(frozen=True)
class Call:
    """One call of a function.

    Args:
        inputs: inputs by name, the caches left out.
        rows: number of rows of logits that come out.
        function: name of the function; None for a package's only one.
    """

    inputs: Mapping[str, Array]
    rows: int
    function: str | None = None


# (tokens, position of the first of them) -> the calls, in order
Plan = Callable[[Sequence[int], int], Iterator[Call]]


def chunks(tokens: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut tokens into what one call of flexible shapes takes."""
    for start in range(0, len(tokens), CHUNK_TOKENS):
        yield tokens[start : start + CHUNK_TOKENS]


def flexible_calls(tokens: Sequence[int], position: int) -> Iterator[Call]:
    """Plan calls of the one function of flexible shapes.

    The mask hides nothing, as the graph is causal by itself; its length says where the tokens go.
    """
    end = position
    for chunk in chunks(tokens):
        end += len(chunk)
        mask = np.zeros((1, 1, 1, end), dtype=np.float16)
        yield Call({INPUT_IDS: token_ids(chunk), CAUSAL_MASK: mask}, rows=len(chunk))


def fixed_calls(prefill_tokens: int, max_context: int) -> Plan:
    """Return the plan for the two functions of fixed shapes.

    Args:
        prefill_tokens: number of tokens that a call of `prefill` takes; fewer are padded.
        max_context: number of slots; `prefill` writes its padding too, which must fit as well.
    """

    def plan(tokens: Sequence[int], position: int) -> Iterator[Call]:
        done = 0
        while done < len(tokens):
            at = position + done
            chunk = tokens[done : done + prefill_tokens]
            if len(chunk) == 1 or at + prefill_tokens > max_context:
                chunk = chunk[:1]
                yield Call(
                    {INPUT_IDS: token_ids(chunk), POSITION: _number(at)}, rows=1, function=DECODE
                )
            else:
                inputs = {
                    INPUT_IDS: token_ids(chunk, width=prefill_tokens),
                    POSITION: _number(at),
                    LENGTH: _number(len(chunk)),
                }
                yield Call(inputs, rows=1, function=PREFILL)
            done += len(chunk)

    return plan


def token_ids(tokens: Sequence[int], width: int | None = None) -> Array:
    """Return tokens as an input, int32 `[1, width]`, padded with zeros behind them."""
    ids = np.zeros((1, len(tokens) if width is None else width), dtype=np.int32)
    ids[0, : len(tokens)] = tokens
    return ids


def output(results: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    """Return one output of a call, checked.

    Raises:
        BundleError: there is none of that name, or it has another shape.
    """
    found = results.get(name)
    if found is None or found.shape != shape:
        what = "nothing" if found is None else f"{found.shape}"
        message = f"the package's output {name!r}: expected the shape {shape}, found {what}"
        raise BundleError(message, "export the bundle again")
    return found


class LastRows:
    """The last rows of logits of several calls.

    Args:
        count: number of rows that are wanted.
        num_logits: V, number of logits in a row.
    """

    def __init__(self, count: int, num_logits: int) -> None:
        self._count = count
        self._num_logits = num_logits
        self._parts: list[FloatArray] = []

    def take(self, results: Mapping[str, Array], rows: int) -> None:
        """Copy what is wanted of a call's rows, when it may be among the last.

        Raises:
            BundleError: the call gave none, or of another shape.
        """
        logits = output(results, LOGITS, (1, rows, self._num_logits))
        kept: FloatArray = np.array(logits[0, -self._count :], dtype=np.float32)
        self._parts = [kept] if len(kept) == self._count else [*self._parts, kept]

    def joined(self) -> FloatArray:
        """Return the rows, `[rows, V]`; of fewer than are wanted, all."""
        rows: FloatArray = np.concatenate(self._parts)[-self._count :]
        return rows


def _number(value: int) -> Array:
    return np.array([value], dtype=np.int32)
