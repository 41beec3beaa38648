"""Run one function: op after op, and after each op what it gave is held against what is declared.

It knows the order, the checks and when a value is not needed any more; it does not know the ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from llama_export.errors import BundleError, EvaluationError
from llama_export.targets.coreml.evaluator.arguments import Arguments, OpError
from llama_export.targets.coreml.evaluator.ops import OPS, READ, WRITE
from llama_export.targets.coreml.evaluator.program import Function, Operand, Operation, Ref
from llama_export.targets.coreml.evaluator.states import (
    Updates,
    last_uses,
    plan_updates,
    require_fresh,
    state_of,
)
from llama_export.targets.coreml.evaluator.types import TensorType, format_shape
from llama_export.targets.coreml.evaluator.values import Text, Value, has_nan, round_to, wrap
from llama_export.targets.coreml.evaluator.weights import Weight

_REPORT = (
    "either the program declares what its ops do not give, which Core ML's compiler would refuse "
    "or get wrong, or the evaluator is wrong: report it with the op"
)


@dataclass(frozen=True)
class Plan:
    """A function that is ready to run.

    Args:
        function: what runs.
        updates: what may be done without a copy.
        freed: names that nobody needs after each op.
        rounds: whether float16 results are rounded.
    """

    function: Function
    updates: Updates
    freed: tuple[tuple[str, ...], ...]
    rounds: bool

    @classmethod
    def of(cls, function: Function, *, rounds: bool) -> Plan:
        """Prepare a function.

        Raises:
            BundleError: it reads or writes a state that it does not have.
            EvaluationError: it uses a state's old content.
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

    def run(self, inputs: Mapping[str, Value], states: dict[str, torch.Tensor]) -> dict[str, Value]:
        """Run the function.

        Args:
            inputs: by name, of the declared types.
            states: the content of each, which changes; after an error it is not to be used.

        Returns:
            The outputs by name. They may share memory with states and constants.

        Raises:
            EvaluationError: an op cannot be computed, or gives what is not declared.
        """
        values = dict(inputs)
        for name, value in inputs.items():
            declared = self.function.inputs[name]
            if isinstance(declared, TensorType):
                self._require_declared(value, declared, f"the input {name}")
        for number, operation in enumerate(self.function.operations):
            if operation.type == WRITE:
                self._write(number, operation, values, states)
            else:
                for (name, declared), value in zip(
                    operation.outputs,
                    self._results(number, operation, values, states),
                    strict=True,
                ):
                    self._require_declared(value, declared, f"{name} ({operation.type})")
                    values[name] = value
            for name in self.freed[number]:
                values.pop(name, None)
        return {name: self._output(name, part, values) for name, part in self.function.outputs}

    def _results(
        self,
        number: int,
        operation: Operation,
        values: Mapping[str, Value],
        states: Mapping[str, torch.Tensor],
    ) -> Sequence[Value]:
        """Compute one op, and check what does not need its declaration."""
        if operation.type == READ:
            state = state_of(self.function, operation)
            return [Value(states[state], self.function.states[state].dtype)]
        op = OPS[operation.type]
        given = {
            parameter: [self._given(part, values) for part in parts]
            for parameter, parts in operation.inputs.items()
        }
        try:
            found = op.run(Arguments(given, self.function.opset, number in self.updates.in_place))
        except (OpError, RuntimeError, IndexError, ValueError) as error:
            message = f"{self._where(operation)}: {error}"
            raise EvaluationError(message, "the program asks for what the op cannot do") from error
        results = found if isinstance(found, tuple) else (found,)
        if len(results) != len(operation.outputs):
            message = (
                f"{self._where(operation)}: the program declares {len(operation.outputs)} results, "
                f"the op gives {len(results)}"
            )
            raise EvaluationError(
                message,
                _REPORT,
            )
        return results if op.moves else [self._computed(value, operation) for value in results]

    def _computed(self, value: Value, operation: Operation) -> Value:
        """Round a result as its dtype is, and refuse a NaN."""
        data = wrap(value.data, value.dtype)
        if self.rounds:
            data = round_to(data, value.dtype)
        if has_nan(data):
            message = f"{self._where(operation)}: expected numbers, found a NaN"
            raise EvaluationError(
                message,
                "an infinite value before it is the usual cause: float16 ends at 65504, and a row "
                "of a mask that hides everything has no softmax",
            )
        return value.like(data)

    def _write(
        self,
        number: int,
        operation: Operation,
        values: Mapping[str, Value],
        states: dict[str, torch.Tensor],
    ) -> None:
        state = state_of(self.function, operation)
        value = _tensor(self._given(operation.inputs["data"][0], values))
        self._require_declared(value, self.function.states[state], f"what is written to {state}")
        adopted = number in self.updates.adopted
        states[state] = (
            value.data if adopted else value.data.clone(memory_format=torch.contiguous_format)
        )

    def _given(self, part: Operand, values: Mapping[str, Value]) -> Value | Text | Weight:
        if not isinstance(part, Ref):
            return part
        if part.name not in values:
            message = f"{self.function.name}: {part.name} is a state and is used as a value"
            raise BundleError(message)
        return values[part.name]

    def _output(self, name: str, part: Operand, values: Mapping[str, Value]) -> Value:
        value = _tensor(self._given(part, values))
        if has_nan(value.data):
            message = f"{self.function.name}: the output {name} has a NaN"
            raise EvaluationError(message)
        return value

    def _require_declared(self, value: Value, declared: TensorType, what: str) -> None:
        if not declared.admits(value.dtype, value.shape):
            message = (
                f"{self.function.name}: {what}: the program declares {declared}, the op gives "
                f"{value.dtype} {format_shape(value.shape)}"
            )
            raise EvaluationError(
                message,
                _REPORT,
            )

    def _where(self, operation: Operation) -> str:
        return f"{self.function.name}: {operation.label} ({operation.type})"


def _tensor(part: Value | Text | Weight) -> Value:
    """Return a tensor that is given; a text cannot be an output or a state."""
    if isinstance(part, Value):
        return part
    if isinstance(part, Text):
        message = f"expected a tensor, found the text {part.text!r}"
        raise EvaluationError(message)
    return Value(part.whole(), part.dtype)
