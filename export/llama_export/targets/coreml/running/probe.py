"""Tap a package: run it in the evaluator, unrounded, and return a Llama's intermediate values.

It knows packages and points; it does not know what should be there.

Shapes: S tokens of a chunk, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coreml_evaluator import Evaluator, EvaluatorState
from llama_export.llama import intermediates
from llama_export.llama.intermediates import FloatArray, Intermediates, in_layer
from llama_export.targets.coreml.running.find_intermediates import Points, find_intermediates
from llama_export.targets.coreml.running.runner import Array
from llama_export.targets.coreml.running.session import CoremlSession
from llama_export.targets.coreml.signature import INPUT_IDS, LENGTH, LOGITS
from llama_export.targets.session import KeyValueArrays
from llama_export.targets.stored import StoredArtifact

_CACHE_NAMES = ("keyCache", "valueCache")


def probe(
    artifact: StoredArtifact, chunks: Sequence[Sequence[int]], *, threads: int | None
) -> tuple[Intermediates, ...]:
    """Run chunks of tokens one after the other, from an empty cache, rounding nothing.

    Args:
        artifact: the package.
        chunks: tokens of each call; together at most the package's context.
        threads: number of PyTorch's threads; None leaves it as it is.

    Returns:
        What each chunk held.

    Raises:
        BundleError: the package is damaged.
        EvaluationError: the package cannot be run.
    """
    tapping = _Tapping(Evaluator.open(artifact.path, mode="fp32", threads=threads))
    session = CoremlSession(tapping, artifact.spec, artifact.vocab_size)
    tapped = []
    past = _caches(session)
    for chunk in chunks:
        tapping.begin()
        session.prefill(chunk)
        present = _caches(session)
        values, names = tapping.gathered()
        for layer, (before, after) in enumerate(zip(past, present, strict=True)):
            points = (
                (intermediates.PAST_KEY, intermediates.PAST_VALUE),
                (intermediates.KEY, intermediates.VALUE),
            )
            for parts, rows in zip(points, (before, after), strict=True):
                for name, part, array in zip(_CACHE_NAMES, parts, rows, strict=True):
                    values[in_layer(layer, part)] = array
                    names[in_layer(layer, part)] = f"{name}[{layer}]"
        tapped.append(Intermediates(values, names))
        past = present
    return tuple(tapped)


class _Tapping:
    """An evaluator whose calls are remembered; satisfies `runner.Runner`."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._points = {
            name: find_intermediates(evaluator.program(name)) for name in evaluator.functions
        }
        self._calls: list[tuple[dict[str, FloatArray], dict[str, str]]] = []

    @property
    def mode(self) -> str:
        """The evaluator's mode."""
        return self._evaluator.mode

    def begin(self) -> None:
        """Forget the calls so far."""
        self._calls = []

    def gathered(self) -> tuple[dict[str, FloatArray], dict[str, str]]:
        """Return the points of all calls joined, and the values' names."""
        first, names = self._calls[0]
        values = {
            point: np.concatenate([found[point] for found, _ in self._calls if point in found])
            for point in first
        }
        # Each call gives as many rows of logits as it likes; only the last are sure.
        values[intermediates.HEAD] = self._calls[-1][0][intermediates.HEAD]
        return values, dict(names)

    def make_state(self) -> EvaluatorState:
        """Return new caches."""
        return self._evaluator.make_state()

    def predict(
        self,
        inputs: Mapping[str, Array],
        state: EvaluatorState | None = None,
        *,
        function: str | None = None,
    ) -> Mapping[str, Array]:
        """Call a function, and remember what it held."""
        points = self._points[function or self._evaluator.default_function]
        also = {
            *points.single.values(),
            *(name for each in points.joined.values() for name in each),
        }
        found = self._evaluator.predict(inputs, state, function=function, also=also)
        count = int(inputs[LENGTH][0]) if LENGTH in inputs else inputs[INPUT_IDS].shape[1]
        self._calls.append(_rows(points, found, count))
        return found


def _rows(
    points: Points, found: Mapping[str, Array], count: int
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Return the first rows of each point, without padding, float32 `[S, N]`, and the names."""

    def rows(name: str) -> FloatArray:
        array: FloatArray = np.array(found[name], dtype=np.float32)
        array = array.reshape(-1, array.shape[-1])
        return array if name == LOGITS else array[:count]

    values = {point: rows(name) for point, name in points.single.items()}
    for point, parts in points.joined.items():
        values[point] = np.concatenate([rows(name) for name in parts], axis=-1)
    names = {**points.single, **{point: " ".join(parts) for point, parts in points.joined.items()}}
    return values, names


def _caches(session: CoremlSession) -> list[KeyValueArrays]:
    return [session.cache(layer) for layer in range(session.num_layers)]
