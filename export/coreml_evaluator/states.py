"""Find a function's stale reads of its states, and the updates that can be done in place.

Both follow from the program alone, when it is opened. This module knows which ops return their
input; it does not know any number.

A value that is a whole state (read from it, updated from such a read, or about to be written to it)
has the state's version: the number of writes before it. A value of an older version is a sign that
coremltools' pass `remove_redundant_ops` has merged reads across writes: an update of an old read
loses what was written since. See https://github.com/apple/coremltools/pull/2786.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coreml_evaluator.ops import READ, UPDATE, WRITE
from coreml_evaluator.program import Function, Operation, Ref
from llama_export.errors import BundleError, EvaluationError

# Their result is still the whole state.
_WHOLE = frozenset({"identity", "cast", "reshape", "expand_dims", "squeeze", "transpose"})
_NEVER = -1


@dataclass(frozen=True)
class Updates:
    """The ops that need no copy.

    Args:
        in_place: indices of the `slice_update` ops that may write into their input.
        adopted: indices of the `write_state` ops whose value may become the state itself.
    """

    in_place: frozenset[int]
    adopted: frozenset[int]


def state_of(function: Function, operation: Operation) -> str:
    """Return the state that an op reads or writes.

    Raises:
        BundleError: the op names no state of the function, or more than one.
    """
    names = operation.refs("input")
    if len(names) != 1 or names[0] not in function.states:
        message = (
            f"{function.name}: {operation.type} of {operation.label}: expected one state, found "
            f"{names or 'none'}"
        )
        raise BundleError(message)
    return names[0]


def written(function: Function, operation: Operation) -> str | None:
    """Return the name of the value that a `write_state` writes; None for a constant.

    Raises:
        BundleError: the op does not write exactly one value.
    """
    if len(operation.inputs.get("data", ())) != 1:
        message = f"{function.name}: {WRITE} to {state_of(function, operation)}: expected one value"
        raise BundleError(message)
    names = operation.refs("data")
    return names[0] if names else None


def require_fresh(function: Function) -> None:
    """Refuse a function that uses what it read from a state after a later write.

    Raises:
        EvaluationError: an old read is used; the message names the state and the op.
    """
    versions = dict.fromkeys(function.states, 0)
    holders: dict[str, tuple[str, int]] = {}
    for operation in function.operations:
        for name in operation.refs():
            if name in holders:
                state, version = holders[name]
                if version != versions[state]:
                    raise _stale(function, operation, name, state, versions[state] - version)
        if operation.type == READ:
            state = state_of(function, operation)
            holders[operation.label] = (state, versions[state])
        elif operation.type == WRITE:
            state = state_of(function, operation)
            versions[state] += 1
            value = written(function, operation)
            if value is not None:
                holders[value] = (state, versions[state])
        elif operation.type == UPDATE or operation.type in _WHOLE:
            source = next(iter(operation.refs("x")), None)
            if source in holders:
                holders[operation.label] = holders[source]


def _stale(
    function: Function, operation: Operation, name: str, state: str, writes: int
) -> EvaluationError:
    return EvaluationError(
        f"{function.name}: {operation.type} {operation.label} uses {name}, which was read from the "
        f"state {state} before {writes} later write{'s' if writes > 1 else ''} to it: what was "
        f"written is lost, or not seen",
        "coremltools' pass common::remove_redundant_ops merges reads of a state across writes "
        "(apple/coremltools pull request 2786): read each state once, and go on with what "
        "coreml_update_state returns, or save without that pass",
    )


def plan_updates(function: Function, aliasing: Mapping[str, bool]) -> Updates:
    """Find the updates of states that need no copy.

    Args:
        function: a function that `require_fresh` accepts.
        aliasing: for each type of op, whether its result may share memory with `x`.
    """
    planner = _Planner(function, aliasing)
    for number, operation in enumerate(function.operations):
        planner.step(number, operation)
    return Updates(frozenset(planner.in_place), frozenset(planner.adopted))


class _Planner:
    """Tracker of memory through a function: values of one group may share it."""

    def __init__(self, function: Function, aliasing: Mapping[str, bool]) -> None:
        self._function = function
        self._aliasing = aliasing
        self._last_use = last_uses(function)
        self._group_of: dict[str, int] = {}
        self._members: dict[int, set[str]] = {}
        self._updated: set[str] = set()
        self._new = 0
        # The memory of a state itself; nobody else's at first.
        self._state_group = {state: self._fresh() for state in function.states}
        self._foreign = self._fresh()  # constants: never written to
        self.in_place: set[int] = set()
        self.adopted: set[int] = set()
        for name in function.inputs:
            self._join(name, self._fresh())

    def step(self, number: int, operation: Operation) -> None:
        if operation.type == READ:
            self._join(operation.label, self._state_group[state_of(self._function, operation)])
        elif operation.type == WRITE:
            self._write(number, operation)
        elif operation.type == UPDATE:
            self._update(number, operation)
        else:
            aliases = self._aliasing.get(operation.type, True)
            group = self._source_group(operation) if aliases else self._fresh()
            for name, _ in operation.outputs:
                self._join(name, group)

    def _write(self, number: int, operation: Operation) -> None:
        state, value = state_of(self._function, operation), written(self._function, operation)
        group = self._group_of[value] if value is not None else self._foreign
        others = [g for other, g in self._state_group.items() if other != state]
        # Only an update's result is sure to be whole memory of the state's own shape.
        if value in self._updated and group not in others and group != self._foreign:
            self.adopted.add(number)
            self._state_group[state] = group
        else:
            self._state_group[state] = self._fresh()

    def _update(self, number: int, operation: Operation) -> None:
        source = next(iter(operation.refs("x")), None)
        group = self._source_group(operation)
        state = next((s for s, g in self._state_group.items() if g == group), None)
        if (
            source is not None
            and state is not None
            and self._is_dead_after(source, group, number)
            and self._is_written_back(number, operation.label, state)
        ):
            self.in_place.add(number)
        else:
            group = self._fresh()
        self._updated.add(operation.label)
        self._join(operation.label, group)

    def _is_dead_after(self, source: str, group: int, number: int) -> bool:
        """Return whether no other op uses the memory from here on."""
        operation = self._function.operations[number]
        return (
            self._last_use.get(source, _NEVER) == number
            and operation.refs().count(source) == 1
            and all(
                self._last_use.get(name, _NEVER) < number
                for name in self._members[group] - {source}
            )
        )

    def _is_written_back(self, number: int, label: str, state: str) -> bool:
        """Return whether the state's next use is the write of this update."""
        chain = {label}
        for operation in self._function.operations[number + 1 :]:
            if operation.type == UPDATE and chain.intersection(operation.refs("x")):
                chain.add(operation.label)
            elif operation.type in (READ, WRITE):
                if state_of(self._function, operation) != state:
                    continue
                return operation.type == WRITE and written(self._function, operation) in chain
        return False

    def _source_group(self, operation: Operation) -> int:
        """Return the memory group of an op's `x`."""
        source = next(iter(operation.refs("x")), None)
        return self._foreign if source is None else self._group_of[source]

    def _join(self, name: str, group: int) -> None:
        self._group_of[name] = group
        self._members.setdefault(group, set()).add(name)

    def _fresh(self) -> int:
        self._new += 1
        return self._new


def last_uses(function: Function) -> dict[str, int]:
    """Return the index of the last op that uses each name; outputs are used after all ops."""
    uses = {
        name: number
        for number, operation in enumerate(function.operations)
        for name in operation.refs()
    }
    for _, operand in function.outputs:
        if isinstance(operand, Ref):
            uses[operand.name] = len(function.operations)
    return uses
