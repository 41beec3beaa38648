"""Run the way from ids to the first layer alone, cut out of a package's own program.

Its ends are found from the first attention: what the norm before it takes, and what is added to its
result. So whatever stands between the ids and these is run, be it known or not, and in every
function of the package. The evaluator runs it, unrounded.

Shapes: n ids, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from coreml_evaluator import Evaluator
from coreml_evaluator.part import Part
from coreml_evaluator.program import Function, Operation
from coreml_evaluator.types import NUMPY
from llama_export.errors import BundleError
from llama_export.llama import intermediates
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.coreml.running.find_intermediates import Walk
from llama_export.targets.coreml.running.runner import Array
from llama_export.targets.coreml.signature import INPUT_IDS

NORM, SQUARE = "model.layers.0.input_layernorm", "model.layers.0.input_layernorm (mean of squares)"
SUM = "model.layers.0 (sum after self_attn)"
_AGAIN = "export the bundle again"


class CoremlLookup:
    """The cut functions in the evaluator; satisfies `Lookup`.

    Args:
        parts: for each function its part, and the name of the value that each consumer takes.
    """

    def __init__(self, parts: Mapping[str, tuple[Part, Mapping[str, str]]]) -> None:
        self._parts = dict(parts)

    @classmethod
    def open(cls, package: Path, *, threads: int | None = None) -> CoremlLookup:
        """Open a package and cut all of its functions.

        Args:
            package: path of model.mlpackage.
            threads: number of PyTorch's threads; None leaves it as it is.

        Raises:
            BundleError: the package is damaged, or its first layer has another form.
            EvaluationError: the package cannot be run.
        """
        evaluator = Evaluator.open(package, mode="fp32", threads=threads)
        parts = {}
        for name in evaluator.functions:
            ends = find_ends(evaluator.program(name))
            parts[name] = evaluator.part(sorted(set(ends.values())), name), ends
        return cls(parts)

    def rows(self, input_ids: Sequence[int]) -> Mapping[str, FloatArray]:
        """Look ids up, `[n, E]` for each consumer in each function.

        Raises:
            EvaluationError: the program cannot be run.
        """
        found: dict[str, FloatArray] = {}
        for function, (part, ends) in self._parts.items():
            whose = f"{function}: " if len(self._parts) > 1 else ""
            results = part.run([_fed(part, ids) for ids in _calls(part, input_ids)])
            for consumer, name in ends.items():
                rows = [np.asarray(each[name], np.float32) for each in results]
                stacked = np.concatenate([each.reshape(-1, each.shape[-1]) for each in rows])
                # A call of fixed size is filled up with its last id.
                found[f"{whose}{consumer}"] = stacked[: len(input_ids)]
        return found

    def close(self) -> None:
        """Let go of the programs."""
        self._parts = {}


def find_ends(function: Function) -> dict[str, str]:
    """Return which value the first norm takes, and which one is added to the first attention.

    Raises:
        BundleError: the first layer has another form.
    """
    walk = Walk(function)
    maker = {name: each for each in function.operations for name, _ in each.outputs}
    points = dict(walk.layer(walk.attentions[0])) if walk.attentions else {}
    total = maker.get(points.get(intermediates.ATTENTION_SUM, ""))
    normed = maker.get(points.get(intermediates.INPUT_NORM, ""))
    ends = dict(_norm_ends(normed, maker))
    if total is not None:
        output = points[intermediates.OUTPUT]
        residuals = [name for name in total.refs() if not _comes_from(name, output, maker)]
        ends |= dict(zip((SUM,), residuals, strict=False))
    if set(ends) != {NORM, SQUARE, SUM}:
        message = f"{function.name}: the first layer is not a norm, an attention and a sum"
        raise BundleError(message, _AGAIN)
    return ends


def _norm_ends(
    normed: Operation | None, maker: Mapping[str, Operation]
) -> Iterator[tuple[str, str]]:
    """Go back from a norm's result to what it takes, by both of its ways."""
    factors = [normed] if normed is not None else []
    while factors:
        operation = factors.pop()
        made = {name: maker.get(name) for name in operation.refs()}
        kinds = {name: each.type for name, each in made.items() if each is not None}
        if "rsqrt" in kinds.values():
            yield from ((NORM, name) for name in made if kinds.get(name) != "rsqrt")
            yield from _squared([each for each in made.values() if each is not None], maker)
            return
        factors += [each for each in made.values() if each and each.type in ("mul", "cast")][:1]


def _squared(
    factors: Sequence[Operation], maker: Mapping[str, Operation]
) -> Iterator[tuple[str, str]]:
    for operation in factors:
        if operation.type != "rsqrt":
            continue
        mean = maker.get(next(iter(operation.refs("x")), ""))
        square = maker.get(next(iter(mean.refs("x")), "")) if mean else None
        if square is not None and square.type == "square":
            yield SQUARE, square.refs("x")[0]


def _comes_from(name: str, source: str, maker: Mapping[str, Operation]) -> bool:
    """Return whether a value is another one, or a cast of it."""
    while name != source:
        made = maker.get(name)
        if made is None or made.type != "cast":
            return False
        name = made.refs("x")[0]
    return True


def _calls(part: Part, input_ids: Sequence[int]) -> list[list[int]]:
    """Cut ids into calls of the size that the program takes; it may be any."""
    declared = part.inputs.get(INPUT_IDS)
    size = declared.shape[1] if declared is not None and declared.shape is not None else None
    if size is None:
        return [list(input_ids)]
    calls = [list(input_ids[start : start + size]) for start in range(0, len(input_ids), size)]
    return [ids + ids[-1:] * (size - len(ids)) for ids in calls]


def _fed(part: Part, ids: Sequence[int]) -> dict[str, Array]:
    """Return the inputs of a call: the ids, and zeros for whatever else the part may ask for."""
    inputs: dict[str, Array] = {}
    for name, type_ in part.inputs.items():
        shape = [len(ids) if size is None else size for size in type_.shape or ()]
        inputs[name] = np.zeros(shape, NUMPY[type_.dtype])
    inputs[INPUT_IDS] = np.asarray([ids], np.int32)
    return inputs
