"""One conversation's KV cache: inside the package, or handed from call to call.

Both forget nothing when a conversation is rewound: the session says how many positions count, and
what is behind them is written over before it can be seen. Both change only after a whole call, so
an error leaves what the session holds as it was. They know names and shapes, and no runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol

import numpy as np

from llama_export.bundle.graph_spec import IO
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.coreml.running.calls import (
    LastRows,
    Plan,
    chunks,
    fixed_calls,
    flexible_calls,
    output,
    token_ids,
)
from llama_export.targets.coreml.running.layout import CACHES, Layout
from llama_export.targets.coreml.running.runner import Array, Runner, StateT
from llama_export.targets.coreml.signature import (
    INPUT_IDS,
    KEY_CACHE,
    PRESENT_KEYS,
    PRESENT_VALUES,
    VALUE_CACHE,
)
from llama_export.targets.session import KeyValueArrays

_CACHES_OUT = (PRESENT_KEYS, PRESENT_VALUES)


class Caches(Protocol):
    """A conversation's caches, and the way to append to them."""

    def append(self, tokens: Sequence[int], position: int, rows: int) -> FloatArray:
        """Run tokens after the first `position` ones; return the last logits, `[rows, V]`."""

    def rows(self, layer: int, position: int) -> KeyValueArrays:
        """Return copies of a layer's first rows, float32 `[K, position, D]` each."""

    def restored(self, layers: Sequence[KeyValueArrays], position: int) -> Caches:
        """Return new caches that hold what `rows` returned for each layer."""

    def fork(self) -> Caches:
        """Return an independent copy."""


def open_caches(runner: Runner[StateT], layout: Layout) -> Caches:
    """Return the empty caches of a new conversation."""
    if layout.kv_cache == IO:
        return IoCaches(runner, layout)
    if layout.prefill_tokens:
        return StateCaches(runner, layout, fixed_calls(layout.prefill_tokens, layout.max_context))
    return StateCaches(runner, layout, flexible_calls)


class StateCaches(Generic[StateT]):
    """Caches that the package keeps inside, `[L, 1, K, C, D]` each."""

    def __init__(
        self, runner: Runner[StateT], layout: Layout, plan: Plan, state: StateT | None = None
    ) -> None:
        self._runner = runner
        self._layout = layout
        self._plan = plan
        self._state = runner.make_state() if state is None else state

    def append(self, tokens: Sequence[int], position: int, rows: int) -> FloatArray:
        """Run tokens after the first `position` ones; return the last logits, `[rows, V]`."""
        last = LastRows(rows, self._layout.num_logits)
        for call in self._plan(tokens, position):
            results = self._runner.predict(call.inputs, self._state, function=call.function)
            last.take(results, call.rows)
        return last.joined()

    def rows(self, layer: int, position: int) -> KeyValueArrays:
        """Return copies of a layer's first rows, float32 `[K, position, D]` each."""
        key, value = (
            np.array(self._state.read_state(name)[layer, 0, :, :position], dtype=np.float32)
            for name in CACHES
        )
        return key, value

    def restored(self, layers: Sequence[KeyValueArrays], position: int) -> StateCaches[StateT]:
        """Return new caches that hold what `rows` returned for each layer, and zeros after it."""
        state = self._runner.make_state()
        for part, name in enumerate(CACHES):
            whole = state.read_state(name)  # zeros, of the type that the runner holds
            for layer in range(self._layout.layers):
                whole[layer, 0, :, :position] = layers[layer][part]
            state.write_state(name, whole)
        return StateCaches(self._runner, self._layout, self._plan, state)

    def fork(self) -> StateCaches[StateT]:
        """Return an independent copy."""
        state = self._runner.make_state()
        for name in CACHES:
            state.write_state(name, self._state.read_state(name))
        return StateCaches(self._runner, self._layout, self._plan, state)


class IoCaches(Generic[StateT]):
    """Caches that go in and come out longer, `[L, 1, K, 1 + position, D]` each.

    Row 0 is an empty slot, because no input may be empty; the graph hides it while it is zero.
    """

    def __init__(
        self,
        runner: Runner[StateT],
        layout: Layout,
        arrays: tuple[Array, Array] | None = None,
    ) -> None:
        self._runner = runner
        self._layout = layout
        if arrays is None:
            key, value = (np.zeros(layout.cache_shape(1), dtype=np.float16) for _ in CACHES)
            arrays = key, value
        self._arrays = arrays

    def append(self, tokens: Sequence[int], position: int, rows: int) -> FloatArray:
        """Run tokens after the first `position` ones; return the last logits, `[rows, V]`."""
        last = LastRows(rows, self._layout.num_logits)
        # A rewound conversation holds more rows than count.
        key, value = (np.ascontiguousarray(kept[:, :, :, : position + 1]) for kept in self._arrays)
        for chunk in chunks(tokens):
            inputs = {INPUT_IDS: token_ids(chunk), KEY_CACHE: key, VALUE_CACHE: value}
            results = self._runner.predict(inputs)
            shape = self._layout.cache_shape(key.shape[3] + len(chunk))
            last.take(results, len(chunk))
            key, value = (output(results, name, shape) for name in _CACHES_OUT)
        self._arrays = key, value
        return last.joined()

    def rows(self, layer: int, position: int) -> KeyValueArrays:
        """Return copies of a layer's first rows, float32 `[K, position, D]` each."""
        key, value = (
            np.array(rows[layer, 0, :, 1 : position + 1], dtype=np.float32) for rows in self._arrays
        )
        return key, value

    def restored(self, layers: Sequence[KeyValueArrays], position: int) -> IoCaches[StateT]:
        """Return new caches that hold what `rows` returned for each layer."""
        dtype = np.float32 if self._runner.mode == "fp32" else np.float16
        shape = self._layout.cache_shape(position + 1)
        key, value = np.zeros(shape, dtype=dtype), np.zeros(shape, dtype=dtype)
        for layer in range(self._layout.layers):
            key[layer, 0, :, 1:], value[layer, 0, :, 1:] = layers[layer]
        return IoCaches(self._runner, self._layout, (key, value))

    def fork(self) -> IoCaches[StateT]:
        """Return an independent copy."""
        key, value = (rows.copy() for rows in self._arrays)
        return IoCaches(self._runner, self._layout, (key, value))
