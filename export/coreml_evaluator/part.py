"""Cut a few results and the ops that they need out of a function, and run these alone.

It knows a function's ops and their order; it knows no op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from coreml_evaluator.engine import Plan
from coreml_evaluator.program import Function, Ref
from coreml_evaluator.types import TensorType
from coreml_evaluator.values import Array, Value, from_array, to_array
from coreml_evaluator.workers import open_workers
from llama_export.errors import EvaluationError


@dataclass(frozen=True)
class Part:
    """A part of a function, ready to run; `Evaluator.part` makes one.

    Args:
        plan: the part as a function of its own.
        mode: the evaluator's mode.
        threads: number of threads; None for torch's own number.
    """

    plan: Plan
    mode: str
    threads: int | None

    @classmethod
    def of(cls, plan: Plan, results: Sequence[str], mode: str, threads: int | None) -> Part:
        """Cut a part out of a function.

        Raises:
            EvaluationError: the function has no such result.
        """
        return cls(Plan.of(_cut(plan.function, results), rounds=plan.rounds), mode, threads)

    @property
    def inputs(self) -> Mapping[str, TensorType]:
        """The inputs that the part needs, with their types; states are not among them."""
        inputs = self.plan.function.inputs
        return {name: type_ for name, type_ in inputs.items() if isinstance(type_, TensorType)}

    @torch.inference_mode(mode=False)  # a caller's own would not hold in the workers
    def run(self, calls: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run the part several times, each time on states of zeros.

        Args:
            calls: inputs by name, of the dtypes and shapes that the program declares.

        Returns:
            The results of each call by name.

        Raises:
            EvaluationError: a result is a NaN, or not as the program declares.
        """
        found = []
        with torch.no_grad(), open_workers(self.threads) as workers:
            for inputs in calls:
                values = {
                    name: Value(from_array(inputs[name], type_.dtype), type_.dtype)
                    for name, type_ in self.inputs.items()
                }
                states = {
                    name: torch.zeros([size or 0 for size in type_.shape or ()])
                    for name, type_ in self.plan.function.states.items()
                }
                outputs = self.plan.run(values, states, workers)
                found.append(
                    {
                        name: to_array(value.data, value.dtype, self.mode)
                        for name, value in outputs.items()
                    }
                )
        return found


def _cut(function: Function, results: Sequence[str]) -> Function:
    """Return a function of the ops that some results need; writes to states are left out."""
    maker = {
        name: index
        for index, operation in enumerate(function.operations)
        for name, _ in operation.outputs
    }
    missing = [name for name in results if name not in {*maker, *function.inputs}]
    if missing:
        message = f"{function.name}: expected a result named {missing[0]}, found none of that name"
        raise EvaluationError(message)
    needed, names, waiting = set[int](), set[str](), list(results)
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        if name in maker:
            needed.add(maker[name])
            waiting += function.operations[maker[name]].refs()
    return replace(
        function,
        inputs={name: type_ for name, type_ in function.inputs.items() if name in names},
        operations=tuple(function.operations[index] for index in sorted(needed)),
        outputs=tuple((name, Ref(name)) for name in results),
    )
