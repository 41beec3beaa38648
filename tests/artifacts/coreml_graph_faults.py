"""Operators put into a real Core ML program, settings changed in it; words that name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from artifacts import tiny
from artifacts.coreml_programs import quiet

with quiet():
    from coremltools.proto import Model_pb2

VOCAB = tiny.TINY.vocab_size
INT32, FLOAT16, FLOAT32 = 2010, 10, 11


class Program:
    """The functions of model.mlmodel, to be edited and written back."""

    def __init__(self, bundle: Path) -> None:
        self.path = bundle / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
        self.model = Model_pb2.Model()
        self.model.ParseFromString(self.path.read_bytes())

    def block(self, name: str = ""):
        functions = self.model.mlProgram.functions
        function = functions[name or next(iter(sorted(functions)))]
        return next(iter(function.block_specializations.values()))

    def of_type(self, kind: str, function: str = "") -> list:
        return [each for each in self.block(function).operations if each.type == kind]

    def lookup(self, function: str = ""):
        gathers = self.of_type("gather", function)
        return next(each for each in gathers if _names(each, "indices") == ["inputIds"])

    def constant(self, operation, parameter: str, function: str = ""):
        """Return the tensor of the constant that a parameter names."""
        (name,) = _names(operation, parameter)
        made = {out.name: each for each in self.block(function).operations for out in each.outputs}
        return made[name].attributes["val"].immediateValue.tensor

    def put(self, before, kind: str, x: str, y, function: str = "") -> None:
        """Insert an operator of two inputs, `put`, of the type of what `before` makes or takes."""
        block = self.block(function)
        numbers = np.asarray(y)
        whole = numbers.dtype.kind == "i"
        made = (
            Model_pb2.Model().mlProgram.functions["f"].block_specializations["b"].operations.add()
        )
        made.type = kind
        made.inputs["x"].arguments.add().name = x
        value = made.inputs["y"].arguments.add().value
        value.type.tensorType.dataType = 23 if whole else FLOAT32
        (
            value.immediateValue.tensor.ints if whole else value.immediateValue.tensor.floats
        ).values.append(numbers.item())
        output = made.outputs.add()
        output.name = "put"
        output.type.CopyFrom(_type_of(block, self._inputs(function), x))
        index = list(block.operations).index(before)
        block.operations.insert(index, made)

    def _inputs(self, function: str):
        functions = self.model.mlProgram.functions
        return functions[function or next(iter(sorted(functions)))].inputs

    def write(self) -> None:
        self.path.write_bytes(self.model.SerializeToString())


def _names(operation, parameter: str) -> list[str]:
    return [binding.name for binding in operation.inputs[parameter].arguments]


def _type_of(block, inputs, name: str):
    for each in block.operations:
        for output in each.outputs:
            if output.name == name:
                return output.type
    return next(each.type for each in inputs if each.name == name)


def rename(operation, old: str, new: str) -> None:
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.name == old:
                binding.name = new


def ids_through(kind: str, number: int, function: str = ""):
    """Put an operator between the ids and the lookup."""

    def edit(program: Program) -> None:
        lookup = program.lookup(function)
        program.put(lookup, kind, "inputIds", np.int32(number), function)
        rename(program.lookup(function), "inputIds", "put")

    return edit


def only_the_sum_gets_other_rows(program: Program) -> None:
    total = next(
        e for e in program.of_type("add") if e.outputs[0].type.tensorType.dataType == FLOAT32
    )
    embedded = _names(total, "x")[0]
    program.put(total, "mul", embedded, np.float32(1.001))
    total = next(
        e for e in program.of_type("add") if "put" in _names(e, "x") or embedded in _names(e, "x")
    )
    rename(total, embedded, "put")


WAYS = {
    "ids clipped": (ids_through("minimum", 300), "it looks put up, not inputIds"),
    "ids by modulus": (ids_through("mod", 500), "it looks put up"),
    "ids shifted at the lower end": (ids_through("maximum", 3), "it looks put up"),
    "another row for the sum": (only_the_sum_gets_other_rows, "the first sum takes put"),
}


def epsilon(index: int, value: float):
    def edit(program: Program) -> None:
        norm = program.of_type("rsqrt")[index]
        program.constant(norm, "epsilon").floats.values[0] = value

    return edit


def without_the_square(program: Program) -> None:
    """Scale the last norm by the size of what came before the last layer's sums."""
    last = program.of_type("square")[-1]
    before = _names(program.of_type("square")[-2], "x")[0]
    last.inputs["x"].arguments[0].name = before


def keys_for_values(program: Program) -> None:
    reads = program.of_type("write_state")
    for each in reads[:2]:
        (name,) = _names(each, "input")
        rename(each, name, {"keyCache": "valueCache", "valueCache": "keyCache"}[name])


def logits_through(kind: str, number: float):
    def edit(program: Program) -> None:
        head = program.of_type("linear")[-1]
        head.outputs[0].name = "before"
        program.block().operations.add()
        program.put(program.block().operations[-1], kind, "before", np.float32(number))
        del program.block().operations[-1]
        program.block().operations[-1].outputs[0].name = "logits"
        value = program.block().operations[-1].inputs["y"].arguments[0].value
        value.type.tensorType.dataType = FLOAT16
        value.immediateValue.tensor.ClearField("floats")
        value.immediateValue.tensor.bytes.values = np.float16(number).tobytes()

    return edit


def no_longer_swapped(program: Program) -> None:
    """Join a query's halves as they were."""
    swap = next(e for e in program.of_type("concat") if "split_0_1" in _names(e, "values"))
    first, second = swap.inputs["values"].arguments
    first.name, second.name = second.name, first.name


def mask_without_the_token_itself(program: Program) -> None:
    (causal,) = program.of_type("less_equal")
    causal.type = "less"


def weaker_mask(program: Program) -> None:
    """Hide the future behind -8 only."""
    (masked,) = (e for e in program.of_type("mul") if e.outputs[0].name == _mask_of(program))
    program.constant(masked, "y").bytes.values = np.float16(-8).tobytes()


def _mask_of(program: Program) -> str:
    (found,) = (e for e in program.of_type("expand_dims") if e.outputs[0].name == "causal_mask")
    return _names(found, "x")[0]


def a_window(program: Program) -> None:
    """See slots from the 3rd on where those that are written were meant."""
    (visible,) = program.of_type("greater_equal")
    program.put(visible, "maximum", "empty_slots", np.int32(3))
    rename(program.of_type("greater_equal")[0], "empty_slots", "put")


def positions_of_the_slots(program: Program) -> None:
    """Do not count the empty slot out of the positions."""
    for gather in program.of_type("gather"):
        rename(gather, "positions", "new_slots")


def a_window_of(positions: int):
    """Hide what is further back than a number of positions."""

    def edit(program: Program) -> None:
        (visible,) = program.of_type("greater_equal")
        program.put(visible, "sub", "end", np.int32(positions))
        (visible,) = program.of_type("greater_equal")
        visible.inputs["y"].arguments[0].name = "put"

    return edit


OTHERS = {
    "no token sees itself": (
        mask_without_the_token_itself,
        "wiring",
        "expected less_equal, found less",
    ),
    "a weaker mask": (weaker_mask, "wiring", "expected -60000.0, found -8.0"),
    "a window": (a_window, "wiring", "found maximum"),
    "positions by slots": (positions_of_the_slots, "wiring", "new_slots: expected sub"),
    "epsilon of one norm": (epsilon(1, 1.5e-5), "attributes", "epsilon of its rsqrt is 1.5e-05"),
    "epsilon of the last norm": (epsilon(-1, 1.2e-5), "attributes", "model.norm: epsilon"),
    "another value's size": (without_the_square, "wiring", "model.norm: it scales"),
    "keys in the cache of values": (keys_for_values, "wiring", "is not read after a write"),
    "a larger logit": (logits_through("mul", 1.01), "wiring", "lm_head: expected a linear"),
    "capped logits": (logits_through("minimum", 50), "wiring", "found the minimum logits"),
    "halves not swapped": (no_longer_swapped, "wiring", "does not swap the halves"),
}
