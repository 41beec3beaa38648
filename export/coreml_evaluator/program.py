"""A program's functions, read from messages: typed ops with their constants in place.

It knows names and types; it does not know what an op computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from coreml_evaluator.constants import BUILDERS, Constant, read_constant
from coreml_evaluator.messages import Message
from coreml_evaluator.package import Package
from coreml_evaluator.types import StateType, TensorType, format_shape, read_type
from coreml_evaluator.values import Text
from llama_export.errors import BundleError, EvaluationError

_REPORT = (
    "docs/evaluator.md lists the ops that are known; report the others with the program's opset"
)


@dataclass(frozen=True)
class Ref:
    """A reference to the result of an earlier op, or to an input of the function."""

    name: str


Operand = Ref | Constant


@dataclass(frozen=True)
class Operation:
    """One op.

    Args:
        type: MIL name of the op, such as `linear`.
        inputs: operands by parameter name; a list such as `concat`'s has several.
        outputs: names and declared types of the results.
    """

    type: str
    inputs: Mapping[str, tuple[Operand, ...]]
    outputs: tuple[tuple[str, TensorType], ...]

    @property
    def label(self) -> str:
        """The op's name in messages: its first output, or the state that it writes."""
        if self.outputs:
            return self.outputs[0][0]
        return ", ".join(self.refs("input")) or self.type

    def refs(self, parameter: str | None = None) -> list[str]:
        """Return the names that the op reads, for one parameter or for all."""
        chosen = self.inputs.values() if parameter is None else [self.inputs.get(parameter, ())]
        return [part.name for parts in chosen for part in parts if isinstance(part, Ref)]


@dataclass(frozen=True)
class Function:
    """One function.

    Args:
        name: the name that clients use.
        opset: version of the ops: 5 is iOS 15's, 8 is iOS 18's.
        inputs: types by name; states are among them.
        operations: ops in the order in which they run, without constants.
        outputs: names and operands of the outputs.
        constants: constants by name; an op has the very same object as its operand.
    """

    name: str
    opset: int
    inputs: Mapping[str, TensorType | StateType]
    operations: tuple[Operation, ...]
    outputs: tuple[tuple[str, Operand], ...]
    constants: Mapping[str, Constant]

    @property
    def states(self) -> dict[str, TensorType]:
        """The states, with the type of each one's content."""
        return {
            name: type_.wrapped
            for name, type_ in self.inputs.items()
            if isinstance(type_, StateType)
        }


def read_functions(
    package: Package, known: Collection[str], *, rounds: bool
) -> dict[str, Function]:
    """Read all functions of a package.

    Args:
        package: the opened package.
        known: MIL names of the ops that can be run.
        rounds: true if dequantised weights are rounded to their dtype.

    Raises:
        BundleError: the program is damaged.
        EvaluationError: some ops are unknown (all are named), or a constant is not as declared.
    """
    messages = package.model.mlProgram.functions
    if not messages:
        message = f"{package.model_file}: the program has no function"
        raise BundleError(message)
    blocks = {name: _block(proto, name, package) for name, proto in messages.items()}
    _require_known(blocks, {*known, *BUILDERS, "const"})
    return {
        name: _Reader(package, name, rounds).function(messages[name], block)
        for name, block in sorted(blocks.items())
    }


def _block(proto: Message, name: str, package: Package) -> Message:
    """Return the block for the function's opset."""
    if proto.opset not in proto.block_specializations:
        message = (
            f"{package.model_file}: the function {name} has no block for its opset {proto.opset!r}"
        )
        raise BundleError(message)
    return proto.block_specializations[proto.opset]


def _require_known(blocks: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a program with unknown ops; name them all at once, before anything runs."""
    unknown = {
        name: Counter(op.type for op in block.operations if op.type not in known)
        for name, block in blocks.items()
    }
    found = [
        f"{kind} ({count}x in {name})"
        for name, counts in sorted(unknown.items())
        for kind, count in sorted(counts.items())
    ]
    if found:
        message = f"the program has ops that are not known: {', '.join(found)}"
        raise EvaluationError(message, _REPORT)


class _Reader:
    """Reader of one function; `_constants` grows from op to op."""

    def __init__(self, package: Package, name: str, rounds: bool) -> None:
        self._package = package
        self._name = name
        self._rounds = rounds
        self._constants: dict[str, Constant] = {}
        self._defined: set[str] = set()

    def function(self, proto: Message, block: Message) -> Function:
        inputs: dict[str, TensorType | StateType] = {}
        for entry in proto.inputs:
            type_ = read_type(entry.type, f"{self._name}: the input {entry.name}")
            if not isinstance(type_, TensorType | StateType):
                message = f"{self._name}: the input {entry.name} is a list"
                raise EvaluationError(message)
            inputs[entry.name] = type_
            self._define(entry.name)
        operations = []
        for entry in block.operations:
            operation = self._operation(entry)
            if operation is not None:
                operations.append(operation)
        return Function(
            name=self._name,
            opset=int("".join(filter(str.isdigit, proto.opset)) or 0),
            inputs=inputs,
            operations=tuple(operations),
            outputs=tuple((name, self._operand(name, "the outputs")) for name in block.outputs),
            constants=self._constants,
        )

    def _operation(self, proto: Message) -> Operation | None:
        """Read an op; keep it and return None if it is a constant."""
        outputs = []
        for entry in proto.outputs:
            where = f"{self._name}: {entry.name} ({proto.type})"
            type_ = read_type(entry.type, where)
            if not isinstance(type_, TensorType):
                message = f"{where}: expected a tensor as its result"
                raise EvaluationError(message)
            outputs.append((entry.name, type_))
            self._define(entry.name)
        label = outputs[0][0] if outputs else "an op without result"
        where = f"{self._name}: {label} ({proto.type})"
        if proto.type == "const":
            if "val" not in proto.attributes:
                message = f"{where}: the constant has no value"
                raise BundleError(message)
            self._keep(read_constant(proto.attributes["val"], self._package, where), outputs, where)
            return None
        inputs = {
            parameter: tuple(self._binding(part, where) for part in argument.arguments)
            for parameter, argument in proto.inputs.items()
        }
        if proto.type in BUILDERS:
            self._keep(self._built(proto, inputs, where), outputs, where)
            return None
        return Operation(proto.type, inputs, tuple(outputs))

    def _binding(self, proto: Message, where: str) -> Operand:
        if proto.WhichOneof("binding") == "value":
            return read_constant(proto.value, self._package, where)
        return self._operand(proto.name, where)

    def _operand(self, name: str, where: str) -> Operand:
        if name in self._constants:
            return self._constants[name]
        if name not in self._defined:
            message = f"{where}: {name} is used, but nothing before it gives that"
            raise BundleError(message)
        return Ref(name)

    def _define(self, name: str) -> None:
        if name in self._defined:
            message = f"{self._name}: {name} is defined twice"
            raise BundleError(message)
        self._defined.add(name)

    def _built(
        self, proto: Message, inputs: Mapping[str, tuple[Operand, ...]], where: str
    ) -> Constant:
        """Build a `constexpr_` op: up to iOS 17 its parameters are attributes, then inputs."""
        given: dict[str, Constant] = {
            name: read_constant(value, self._package, where)
            for name, value in proto.attributes.items()
            if name != "name"
        }
        for name, parts in inputs.items():
            if len(parts) != 1 or isinstance(parts[0], Ref):
                message = f"{where}: expected one constant as {name}"
                raise EvaluationError(message)
            given[name] = parts[0]
        try:
            return BUILDERS[proto.type](given, where, rounds=self._rounds)
        except KeyError as error:
            message = f"{where}: has no parameter {error}"
            raise BundleError(message) from error

    def _keep(self, constant: Constant, outputs: list[tuple[str, TensorType]], where: str) -> None:
        """Keep a constant under its name if it is as declared."""
        if len(outputs) != 1:
            message = f"{where}: expected one result, found {len(outputs)}"
            raise BundleError(message)
        name, declared = outputs[0]
        if isinstance(constant, Text):
            fits, found = declared.dtype == "string", "a text"
        else:
            fits = declared.admits(constant.dtype, constant.shape)
            found = f"{constant.dtype} {format_shape(constant.shape)}"
        if not fits:
            message = f"{where}: the program declares {declared}, its constant is {found}"
            raise EvaluationError(message)
        self._constants[name] = constant
