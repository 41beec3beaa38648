"""Read what a method of a `.pte` calls, and the numbers among its values.

It knows ExecuTorch's instructions; it does not know what an operator computes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llama_export.targets.executorch.reading.flatbuffer import Table

# Fields of ExecutionPlan, and of a union.
_CHAINS, _OPERATORS = 5, 6
_TYPE, _TABLE = 0, 1
_KERNEL_CALL, _DELEGATE_CALL = 1, 2
# Types of a value, and the forms of those that are numbers.
_NOTHING = 1
_SCALARS: Mapping[int, str] = {2: "<q", 3: "<?", 4: "<d"}


@dataclass(frozen=True)
class Call:
    """An instruction: of an operator by its name, or of a delegate by its number.

    Args:
        operator: name as "namespace::name.overload"; empty for a delegate.
        delegate: index of the delegate; -1 for an operator.
        arguments: indices of the method's values.
    """

    operator: str
    delegate: int
    arguments: tuple[int, ...]


def read_instructions(method: Table) -> Iterator[Call | None]:
    """Yield the instructions of a method; None for one that calls nothing, such as a jump.

    Raises:
        ValueError: one calls an operator that there is not.
    """
    operators = [
        f"{table.text(0)}.{table.text(1)}".removesuffix(".") for table in method.tables(_OPERATORS)
    ]
    for chain in method.tables(_CHAINS):
        for instruction in chain.tables(2):
            found, kind = instruction.table(_TABLE), instruction.number(_TYPE, "B")
            if found is None or kind not in (_KERNEL_CALL, _DELEGATE_CALL):
                yield None
                continue
            number, arguments = found.number(0, "i"), tuple(found.numbers(1, "i"))
            if kind == _KERNEL_CALL:
                if not 0 <= number < len(operators):
                    message = f"it has no operator {number}"
                    raise ValueError(message)
                yield Call(operators[number], -1, arguments)
            else:
                yield Call("", number, arguments)


def read_scalar(value: Table) -> bool | float | str:
    """Return a value that is a number, in its own type; a word for any other.

    Raises:
        ValueError: it is outside the file.
    """
    kind, held = value.number(_TYPE, "B"), value.table(_TABLE)
    if kind not in _SCALARS or held is None:
        return "none" if kind == _NOTHING else "no number"
    at = held.place(0)
    form = _SCALARS[kind]
    size_bytes = struct.calcsize(form)
    # What is not stored is nothing of its type.
    content = bytes(size_bytes) if at is None else bytes(value.data[at : at + size_bytes])
    if len(content) < size_bytes:
        message = f"offset {at} is outside the file"
        raise ValueError(message)
    found: bool | float = struct.unpack(form, content)[0]
    return found
