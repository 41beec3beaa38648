"""Run one function op by op, and check each result against the program's declaration.

It knows the order, the checks and when a value is no longer needed; it does not know the ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from coreml_evaluator.arguments import Arguments, OpError
from coreml_evaluator.ops import OPS, READ, WRITE
from coreml_evaluator.program import Function, Operand, Operation, Ref
from coreml_evaluator.states import Updates, last_uses, plan_updates, require_fresh, state_of
from coreml_evaluator.types import TensorType, format_shape
from coreml_evaluator.values import Text, Value, has_nan, round_to, wrap
from coreml_evaluator.weights import Weight
from coreml_evaluator.workers import Workers
from llama_export.errors import BundleError, EvaluationError

_REPORT = (
    "either the program declares what its ops do not give, which Core ML's compiler would refuse "
    "or get wrong, or the evaluator is wrong: report it with the op"
)

# What torch and an op's own code raise for values that the op cannot take.
_FAULTS = (OpError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)

Watch = Callable[[str, Value], None]


@dataclass(frozen=True)
class Plan:
    """A function that is ready to run.

    Args:
        function: the function to run.
        updates: state updates that need no copy.
        freed: for each op, the names that no later op needs.
        rounds: true if float16 results are rounded.
    """

    function: Function
    updates: Updates
    freed: tuple[tuple[str, ...], ...]
    rounds: bool

    @classmethod
    def of(cls, function: Function, *, rounds: bool) -> Plan:
        """Prepare a function.

        Raises:
            BundleError: the function reads or writes a state that it does not have.
            EvaluationError: the function uses a state's old content.
        """
        require_fresh(function)
        freed: list[list[str]] = [[] for _ in range(len(function.operations) + 1)]
        for name, number in last_uses(function).items():
            freed[number].append(name)
        return cls(
            function=function,
            updates=plan_updates(function, {name: op.aliases for name, op in OPS.items()}),
            freed=tuple(tuple(names) for names in freed),
            rounds=rounds,
        )

    def run(
        self,
        inputs: Mapping[str, Value],
        states: dict[str, torch.Tensor],
        workers: Workers,
        watch: Watch | None = None,
    ) -> dict[str, Value]:
        """Run the function.

        Args:
            inputs: values by name, of the declared types.
            states: content of each state, which the run changes; invalid after an error.
            workers: threads that share the products.
            watch: receiver of each result; the result's memory may be reused after the call.

        Returns:
            The outputs by name. They may share memory with states and constants.

        Raises:
            EvaluationError: an op cannot be computed, or its result is not as declared.
        """
        return _Run(self, dict(inputs), states, workers, watch).outputs()


class _Run:
    """One execution of a plan.

    Args:
        plan: the plan to run.
        values: values that are computed and still needed, by name; at first the inputs.
        states: content of each state.
        workers: threads that share the products.
        watch: receiver of each result.
    """

    def __init__(
        self,
        plan: Plan,
        values: dict[str, Value],
        states: dict[str, torch.Tensor],
        workers: Workers,
        watch: Watch | None,
    ) -> None:
        self._plan = plan
        self._function = plan.function
        self._values = values
        self._states = states
        self._watch = watch
        self._workers = workers

    def outputs(self) -> dict[str, Value]:
        for name, value in self._values.items():
            declared = self._function.inputs[name]
            if isinstance(declared, TensorType):
                self._require_declared(value, declared, f"the input {name}")
        for number, operation in enumerate(self._function.operations):
            if operation.type == WRITE:
                self._write(number, operation)
            else:
                self._keep(operation, self._results(number, operation))
            for name in self._plan.freed[number]:
                self._values.pop(name, None)
        return {name: self._output(name, part) for name, part in self._function.outputs}

    def _keep(self, operation: Operation, results: Sequence[Value]) -> None:
        """Keep an op's results if they are as declared."""
        if len(results) != len(operation.outputs):
            message = (
                f"{self._where(operation)}: the program declares {len(operation.outputs)} results, "
                f"the op gives {len(results)}"
            )
            raise EvaluationError(message, _REPORT)
        for (name, declared), value in zip(operation.outputs, results, strict=True):
            self._require_declared(value, declared, f"{name} ({operation.type})")
            self._values[name] = value
            if self._watch is not None:
                self._watch(name, value)

    def _results(self, number: int, operation: Operation) -> Sequence[Value]:
        """Compute one op."""
        if operation.type == READ:
            state = state_of(self._function, operation)
            return [Value(self._states[state], self._function.states[state].dtype)]
        op = OPS[operation.type]
        given = {
            parameter: [self._given(part) for part in parts]
            for parameter, parts in operation.inputs.items()
        }
        in_place = number in self._plan.updates.in_place
        try:
            found = op.run(Arguments(given, self._function.opset, self._workers, in_place))
        except _FAULTS as error:
            message = f"{self._where(operation)}: {error}"
            raise EvaluationError(message, "the program asks for what the op cannot do") from error
        results = found if isinstance(found, tuple) else (found,)
        return results if op.moves else [self._computed(value, operation) for value in results]

    def _computed(self, value: Value, operation: Operation) -> Value:
        """Round a result to its dtype, and refuse a NaN."""
        data = wrap(value.data, value.dtype)
        if self._plan.rounds:
            data = round_to(data, value.dtype)
        if has_nan(data):
            message = f"{self._where(operation)}: expected numbers, found a NaN"
            raise EvaluationError(
                message,
                "an infinite value before it is the usual cause: float16 ends at 65504, and a row "
                "of a mask that hides everything has no softmax",
            )
        return value.like(data)

    def _write(self, number: int, operation: Operation) -> None:
        state = state_of(self._function, operation)
        value = self._tensor(operation.inputs["data"][0], f"what is written to {state}")
        declared = self._function.states[state]
        self._require_declared(value, declared, f"what is written to {state}")
        data = value.data
        if number not in self._plan.updates.adopted:
            data = data.clone(memory_format=torch.contiguous_format)
        self._states[state] = data

    def _given(self, part: Operand) -> Value | Text | Weight:
        if not isinstance(part, Ref):
            return part
        if part.name not in self._values:
            message = f"{self._function.name}: {part.name} is a state and is used as a value"
            raise BundleError(message)
        return self._values[part.name]

    def _output(self, name: str, part: Operand) -> Value:
        value = self._tensor(part, f"the output {name}")
        if has_nan(value.data):
            message = f"{self._function.name}: the output {name} has a NaN"
            raise EvaluationError(message)
        return value

    def _tensor(self, part: Operand, what: str) -> Value:
        given = self._given(part)
        if isinstance(given, Text):
            message = f"{self._function.name}: {what}: expected a tensor, found a text"
            raise EvaluationError(message)
        return given if isinstance(given, Value) else Value(given.whole(), given.dtype)

    def _require_declared(self, value: Value, declared: TensorType, what: str) -> None:
        if not declared.admits(value.dtype, value.shape):
            message = (
                f"{self._function.name}: {what}: the program declares {declared}, the op gives "
                f"{value.dtype} {format_shape(value.shape)}"
            )
            raise EvaluationError(message, _REPORT)

    def _where(self, operation: Operation) -> str:
        return f"{self._function.name}: {operation.label} ({operation.type})"
