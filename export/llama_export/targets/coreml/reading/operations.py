"""A function of a package to be followed backwards: what makes a value, and what must be true.

It knows MIL's operations and their parameters; it does not know what a Llama is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from coreml_evaluator.program import Function, Operand, Operation, Ref
from coreml_evaluator.values import Text, Value
from coreml_evaluator.weights import Weight
from llama_export.targets.wiring import Attribute, OtherGraphError

# Values that may be left out, where they are what an operator does without.
_OPTIONAL = frozenset({"batch_dims", "validate_indices", "interleave", "begin_mask"})
# An operator's kind with its operands by parameter; a name, or numbers.
Expression = str | tuple[object, ...]
# A parameter's value where it is a constant.
Settings = Mapping[str, float | str | tuple[float, ...]]


class Operations:
    """Operations by what they make; `followed` and `attributes` grow on the way.

    Args:
        function: the function.
    """

    def __init__(self, function: Function) -> None:
        self._all = function.operations
        self._maker = {
            name: index for index, each in enumerate(self._all) for name, _ in each.outputs
        }
        self._names = {id(constant): name for name, constant in function.constants.items()}
        self._written = dict(_writes(function))
        self._expressions: dict[str, Expression] = {}
        self.followed: set[int] = set()
        self.attributes: list[Attribute] = []

    def take(
        self, value: str, kind: str, place: str, settings: Settings, given: Collection[str]
    ) -> Operation:
        """Return the operation that makes a value, and keep its settings.

        Args:
            value: name of the value.
            kind: operator that a Llama has there.
            place: where that is.
            settings: constants that the operator should have, by parameter.
            given: the operator's other parameters.

        Raises:
            OtherGraphError: nothing makes it, or another operator.
        """
        index = self._maker.get(value)
        made = self._all[index] if index is not None else None
        if index is None or made is None or made.type != kind:
            found = f"the {made.type} {made.label}" if made is not None else value
            raise OtherGraphError(place, f"expected a {kind}, found {found}")
        unknown = sorted(set(made.inputs) - set(settings) - set(given) - _OPTIONAL)
        missing = sorted((set(settings) | set(given)) - set(made.inputs) - _OPTIONAL)
        if unknown or missing:
            what = f"the {kind} {made.label} has {', '.join(made.inputs)}"
            raise OtherGraphError(place, what)
        if index not in self.followed:
            self.followed.add(index)
            for name, expected in settings.items():
                if name in made.inputs:
                    self._keep(place, kind, name, made.inputs[name], expected)
        return made

    def _keep(
        self,
        place: str,
        kind: str,
        name: str,
        operands: tuple[Operand, ...],
        expected: float | str | tuple[float, ...],
    ) -> None:
        found: float | str = "computed"
        if len(operands) == 1 and isinstance(operands[0], Text):
            found = operands[0].text
        elif len(operands) == 1 and isinstance(operands[0], Value):
            numbers = operands[0].data.reshape(-1).tolist()
            found = float(numbers[0]) if len(numbers) == 1 else _shown(numbers)
        if isinstance(expected, tuple):
            expected = expected[0] if len(expected) == 1 else _shown(expected)
        self.attributes.append(Attribute(place, f"{name} of its {kind}", found, expected))

    def ref(self, operation: Operation, parameter: str, place: str) -> str:
        """Return the value that a parameter names.

        Raises:
            OtherGraphError: it is a constant.
        """
        names = operation.refs(parameter)
        if len(names) != 1:
            what = f"{parameter} of the {operation.type} {operation.label} is not one value"
            raise OtherGraphError(place, what)
        return names[0]

    def require_weight(self, operation: Operation, parameter: str, name: str, place: str) -> Weight:
        """Refuse another weight than the one of a name, which is the one that is hashed.

        Raises:
            OtherGraphError: it is another, or none.
        """
        (operand,) = operation.inputs[parameter]
        found = self._names.get(id(operand), "no weight")
        if isinstance(operand, Ref) or not isinstance(operand, Weight) or found != name:
            what = f"{parameter} of the {operation.type} {operation.label} is {found}, not {name}"
            raise OtherGraphError(place, what)
        return operand

    def require_nothing(self, operation: Operation, parameter: str, place: str) -> None:
        """Refuse a constant that is not all zeros.

        Raises:
            OtherGraphError: it holds another number, or is computed.
        """
        (operand,) = operation.inputs[parameter]
        values = operand.whole() if isinstance(operand, Weight) else None
        if isinstance(operand, Value):
            values = operand.data
        if values is None or bool(values.any()):
            what = f"{parameter} of the {operation.type} {operation.label} is not zero"
            raise OtherGraphError(place, what)

    def numbers(self, operation: Operation, parameter: str, place: str) -> NDArray[np.float32]:
        """Return a constant's numbers in its shape.

        Raises:
            OtherGraphError: it is computed.
        """
        (operand,) = operation.inputs[parameter]
        values = operand.whole() if isinstance(operand, Weight) else None
        if isinstance(operand, Value):
            values = operand.data
        if values is None:
            what = f"{parameter} of the {operation.type} {operation.label} is no constant"
            raise OtherGraphError(place, what)
        found: NDArray[np.float32] = values.float().numpy()
        return found

    def written_before(self, value: str, place: str) -> str:
        """Return what was written into a state where a value is read from it.

        Raises:
            OtherGraphError: nothing was.
        """
        index = self._maker.get(value)
        written = self._written.get(index) if index is not None else None
        if index is None or written is None:
            raise OtherGraphError(place, f"{value} is not read after a write")
        write, data = written
        self.followed |= {index, write}
        return data

    def expression(self, value: str) -> Expression:
        """Return what a value is computed as, and follow all that it needs.

        An input is its name, a constant its numbers, and what is read from a state that was written
        before is the write.
        """
        if value not in self._expressions:
            self._expressions[value] = self._expressed(value)
        return self._expressions[value]

    def _expressed(self, value: str) -> Expression:
        index = self._maker.get(value)
        if index is None:
            return value
        operation = self._all[index]
        if index in self._written:
            return f"what {value} reads"
        self.followed.add(index)
        operands = (
            (name, tuple(self._operand(part) for part in parts))
            for name, parts in operation.inputs.items()
            if name not in _OPTIONAL
        )
        return (operation.type, tuple(sorted(operands, key=lambda pair: pair[0])))

    def _operand(self, part: Operand) -> Expression:
        if isinstance(part, Ref):
            return self.expression(part.name)
        if isinstance(part, Text):
            return f"text {part.text}"
        numbers = part.data if isinstance(part, Value) else part.whole()
        return tuple(float(number) for number in numbers.reshape(-1).tolist())

    def maker(self, value: str) -> Operation | None:
        """Return the operation that makes a value; None for an input."""
        index = self._maker.get(value)
        return None if index is None else self._all[index]

    def left_over(self) -> list[str]:
        """Name the operations that were never come by."""
        return [
            f"the {each.type} {each.label} leads nowhere that a Llama goes"
            for index, each in enumerate(self._all)
            if index not in self.followed
        ]


def _writes(function: Function) -> list[tuple[int, tuple[int, str]]]:
    """Return, for each read of a state after a write, that write and the value written."""
    last: dict[str, tuple[int, str]] = {}
    found = []
    for index, operation in enumerate(function.operations):
        state = next(iter(operation.refs("input")), "")
        if operation.type == "write_state":
            last[state] = index, next(iter(operation.refs("data")), "")
        elif operation.type == "read_state" and state in last:
            found.append((index, last[state]))
    return found


def _shown(numbers: Collection[float]) -> str:
    return ", ".join(f"{float(number):g}" for number in numbers)
