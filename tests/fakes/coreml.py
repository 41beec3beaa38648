"""A Core ML package in a few lines, strict about its inputs, whose every mistake shows.

A cache's row is a hash of its token, position, layer, head and part; the logits of a position are
a weighted sum of all the rows that it sees. So a wrong position, mask, padding, chunk or stale row
changes them, and `expected_logits` says from the tokens alone what is right.
"""

from __future__ import annotations

import numpy as np

from llama_export.bundle.graph_spec import GraphSpec, TensorSpec

LAYERS, HEADS, HEAD_DIM, VOCAB = 2, 2, 3, 11
CONTEXT = 40
PREFILL_TOKENS = 8
SHAPE = (LAYERS, 1, HEADS, CONTEXT, HEAD_DIM)
FORMS = ("flexible", "fixed", "io")
PRESENT = ("presentKeys", "presentValues")
CACHES = ("keyCache", "valueCache")
_TO_LOGITS = np.random.default_rng(0).standard_normal((2 * LAYERS * HEADS * HEAD_DIM, VOCAB)) / 8


def spec_of(form: str, *, context: int = CONTEXT) -> GraphSpec:
    """Return the signature that the lowering records."""
    inside = (LAYERS, 1, HEADS, context, HEAD_DIM)
    past = (LAYERS, 1, HEADS, "past_length", HEAD_DIM)
    total = (LAYERS, 1, HEADS, "total_length", HEAD_DIM)
    ids = TensorSpec("inputIds", "int32", (1, "sequence_length"))
    logits = TensorSpec("logits", "float16", (1, "sequence_length", VOCAB))
    if form == "io":
        return GraphSpec(
            inputs=(ids, *(TensorSpec(name, "float16", past) for name in CACHES)),
            outputs=(logits, *(TensorSpec(name, "float16", total) for name in PRESENT)),
            kv_cache="io",
            max_context=context,
            all_logits=True,
        )
    states = tuple(TensorSpec(name, "float16", inside) for name in CACHES)
    mask = TensorSpec("causalMask", "float16", (1, 1, "mask_rows", "total_length"))
    if form == "flexible":
        return GraphSpec((ids, mask), (logits,), "state", context, True, states=states)
    return GraphSpec(
        inputs=(
            TensorSpec("inputIds", "int32", (1, 1)),
            TensorSpec("position", "int32", (1,)),
        ),
        outputs=(TensorSpec("logits", "float16", (1, 1, VOCAB)),),
        kv_cache="state",
        max_context=context,
        all_logits=False,
        states=states,
        functions={"prefill": PREFILL_TOKENS, "decode": 1},
    )


def row_of(token: int, position: int) -> np.ndarray:
    """Return a token's rows, float16 `[2, L, 1, K, D]`: key and value."""
    seed = [token + 1, position + 1]
    rows = np.random.default_rng(seed).uniform(0.1, 1, (2, LAYERS, 1, HEADS, HEAD_DIM))
    return rows.astype(np.float16)


def logits_of(rows: list[np.ndarray]) -> np.ndarray:
    """Return the logits `[V]` of a position that sees these rows, the first one first."""
    seen = np.stack([row.astype(np.float64).reshape(-1) for row in rows])
    weights = 1 / (1 + np.arange(len(rows), dtype=np.float64)[:, None])
    return ((seen * weights).sum(axis=0) @ _TO_LOGITS).astype(np.float16)


def expected_logits(tokens: list[int]) -> np.ndarray:
    """Return what is right after these tokens, float32 `[V]`."""
    return logits_of([row_of(*pair[::-1]) for pair in enumerate(tokens)]).astype(np.float32)


def expected_cache(tokens: list[int], layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a layer's cache holds after these tokens, float32 `[K, position, D]` each."""
    rows = np.zeros((2, HEADS, len(tokens), HEAD_DIM), dtype=np.float32)
    for position, token in enumerate(tokens):
        rows[:, :, position] = row_of(token, position)[:, layer, 0]
    return rows[0], rows[1]


class FakeState:
    """Caches of one conversation.

    Args:
        context: positions.
        dtype: float16, or float32 as the evaluator holds in its exact mode.
    """

    def __init__(self, context: int = CONTEXT, dtype: type = np.float16) -> None:
        shape = (LAYERS, 1, HEADS, context, HEAD_DIM)
        self.arrays = {name: np.zeros(shape, dtype=dtype) for name in CACHES}

    def read_state(self, name: str) -> np.ndarray:
        return self.arrays[name].copy()

    def write_state(self, name: str, value: np.ndarray) -> None:
        assert value.shape == self.arrays[name].shape
        assert value.dtype == self.arrays[name].dtype
        self.arrays[name] = value.copy()


class FakePackage:
    """Runs a package; satisfies `Runner`.

    Args:
        form: one of `FORMS`.
        context: positions.
        dtype: of what it holds and gives.
    """

    def __init__(self, form: str, *, context: int = CONTEXT, dtype: type = np.float16) -> None:
        self.form = form
        self.context = context
        self.dtype = dtype
        self.mode = "fp16" if dtype == np.float16 else "fp32"
        self.calls: list[tuple[str | None, dict[str, tuple[int, ...]]]] = []
        self.fail_at = 0  # of the coming calls; 0: none

    def make_state(self) -> FakeState:
        assert self.form != "io"
        return FakeState(self.context, self.dtype)

    def predict(self, inputs, state=None, *, function=None) -> dict[str, np.ndarray]:
        self.calls.append((function, {name: value.shape for name, value in inputs.items()}))
        ids = inputs["inputIds"]
        assert ids.dtype == np.int32
        assert ids.ndim == 2
        assert len(ids) == 1
        assert ids.shape[1] >= 1
        assert (ids >= 0).all()
        assert (ids < VOCAB).all()
        failing = self.fail_at == 1
        self.fail_at = max(self.fail_at - 1, 0)
        run = {"flexible": self._flexible, "fixed": self._fixed, "io": self._io}[self.form]
        results = run(dict(inputs), state, function)
        if failing:  # after the caches are written, which is the worst moment
            message = "out of memory"
            raise RuntimeError(message)
        return results

    def _flexible(self, inputs, state, function):
        assert function is None
        ids, mask = inputs.pop("inputIds")[0], inputs.pop("causalMask")
        assert not inputs
        assert mask.dtype == np.float16
        assert mask.shape[:2] == (1, 1)
        assert mask.shape[2] in (1, len(ids))
        assert len(ids) <= mask.shape[3] <= self.context
        first = mask.shape[3] - len(ids)
        empty = first > 0 and not any(state.arrays[name][0, :, :, 0].any() for name in CACHES)
        # Rotary positions are relative: a client that leaves slot 0 out loses nothing else.
        self._write(state, ids, first, shift=-int(empty))
        logits = []
        for row in range(len(ids)):
            hidden = mask[0, 0, row if mask.shape[2] > 1 else 0] < -1
            seen = [place for place in range(empty, first + row + 1) if not hidden[place]]
            logits.append(logits_of([self._row(state, place) for place in seen]))
        return {"logits": np.stack(logits)[None].astype(self.dtype)}

    def _fixed(self, inputs, state, function):
        assert function in ("prefill", "decode")
        ids, position = inputs.pop("inputIds")[0], inputs.pop("position")
        real = inputs.pop("length") if function == "prefill" else np.ones(1, dtype=np.int32)
        assert not inputs
        for number in (position, real):
            assert number.dtype == np.int32
            assert number.shape == (1,)
        assert len(ids) == {"prefill": PREFILL_TOKENS, "decode": 1}[function]
        assert 1 <= real[0] <= len(ids)
        assert 0 <= position[0] <= self.context - len(ids)
        self._write(state, ids, int(position[0]))
        last = int(position[0] + real[0])
        logits = logits_of([self._row(state, place) for place in range(last)])
        return {"logits": logits[None, None].astype(self.dtype)}

    def _io(self, inputs, state, function):
        assert function is None
        assert state is None
        ids = inputs.pop("inputIds")[0]
        past = [inputs.pop(name) for name in CACHES]
        assert not inputs
        length = past[0].shape[3]
        assert 1 <= length <= self.context
        for cache in past:
            assert cache.shape == (LAYERS, 1, HEADS, length, HEAD_DIM)
            assert cache.dtype in (np.float16, np.float32)
        empty = not any(cache[0, :, :, 0].any() for cache in past)
        whole = FakeState(length + len(ids), self.dtype)
        for name, cache in zip(CACHES, past, strict=True):
            whole.arrays[name][:, :, :, :length] = cache
        self._write(whole, ids, length, shift=-int(empty))
        logits = [
            logits_of([self._row(whole, place) for place in range(empty, length + row + 1)])
            for row in range(len(ids))
        ]
        caches = dict(zip(PRESENT, whole.arrays.values(), strict=True))
        return {"logits": np.stack(logits)[None].astype(self.dtype), **caches}

    def _write(self, state, ids, first, *, shift=0):
        for place, token in enumerate(ids, first):
            key, value = row_of(int(token), place + shift)
            state.arrays["keyCache"][:, :, :, place] = key
            state.arrays["valueCache"][:, :, :, place] = value

    def _row(self, state, place):
        return np.stack([state.arrays[name][:, :, :, place] for name in CACHES])
