"""Instructions put into a `.pte`, and operators changed inside: each is red, and is named."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("executorch", reason="executorch is not installed (the extra 'executorch')")
from artifacts.executorch_artifacts import INT8_ROWS, TINY, UNTIED, lower_to, one_layer
from artifacts.executorch_artifacts import tiny as tiny
from artifacts.executorch_artifacts import workshop as workshop

from llama_export.errors import BundleError
from llama_export.targets.executorch.reading.flatbuffer import Table, read_number, write_number
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.weights import LOOKUP
from llama_export.targets.executorch.reading.wiring import read_wiring
from llama_export.targets.executorch.running.lookup import ExecutorchLookup
from llama_export.targets.executorch.xnnpack import host_program
from llama_export.targets.stored import StoredArtifact
from llama_export.targets.wiring import Wiring

pytestmark = [pytest.mark.executorch, pytest.mark.usefixtures("one_thread")]

VOCAB = TINY.vocab_size
IDS = [0, 300, 7, VOCAB - 2, VOCAB - 1]
ADD, CLAMP, MULTIPLY = 1, 6, 15


def wiring_of(path: Path, artifact) -> Wiring:
    return read_wiring(Pte.open(path), artifact.config, artifact.spec)


def rows_of(path: Path, artifact):
    lookup = ExecutorchLookup.open(StoredArtifact(path, artifact.spec))
    found = lookup.rows(IDS)
    lookup.close()
    return found


def table_of(artifact):
    return artifact.weights.dequantized("model.embed_tokens.weight")[IDS].numpy()


# Each is an expression of the host's forward pass, and what a buggy exporter might write instead.
# The rows that are then looked up are other ones, but for the last few.
LOWERED = {
    "ids clipped": ("-128, 127, tokens,", "-128, 127, tokens.clamp(max=300),", "clamp", True),
    "ids by remainder": ("-128, 127, tokens,", "-128, 127, tokens % 500,", "remainder", True),
    "rows scaled": (
        "dtype=torch.float32\n    )\n",
        "dtype=torch.float32\n    )\n    hidden = hidden * 1.001\n",
        "mul",
        True,
    ),
    "other rows for the sum": (
        "self._call(0, {HIDDEN: hidden}, tables)",
        "self._call(0, {HIDDEN: hidden * 1.001}, tables)",
        "mul",
        True,
    ),
    "one logit larger": (
        "logits: Tensor = values[LOGITS]",
        "logits: Tensor = values[LOGITS] + torch.eye(1, 512)",
        "aten::add.out of logits",
        False,
    ),
    "logits capped": (
        "logits: Tensor = values[LOGITS]",
        "logits: Tensor = values[LOGITS].clamp(-50, 50)",
        "aten::clamp.out of logits",
        False,
    ),
    "keys in the cache of values": (
        "values[KEY].to(dtype), key_",
        "values[VALUE].to(dtype), key_",
        "llama::update_cache.out of value 0, key_cache_0",
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOWERED)
def test_an_instruction_that_is_not_a_llamas_is_named(workshop, tmp_path, name):
    old, new, words, other_rows = LOWERED[name]
    source = textwrap.dedent(inspect.getsource(host_program.HostModule.forward))
    assert old in source
    names = dict(vars(host_program))
    exec(source.replace(old, new), names)
    with mock.patch.object(host_program.HostModule, "forward", names["forward"]):
        made = lower_to(tmp_path, TINY, workshop.weights())
    wiring = wiring_of(made.path, made)
    assert any(words in each for each in wiring.strangers), wiring.strangers
    same = [np.array_equal(rows, table_of(made)) for rows in rows_of(made.path, made).values()]
    assert all(same) is not other_rows


class Edited:
    """A `.pte` whose bytes are overwritten in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pte = Pte.open(path)
        self.content = bytearray(path.read_bytes())

    def call(self, operator: str, index: int = 0):
        return [call for call in self.pte.calls if call.operator == operator][index]

    def argument_at(self, call, place: int) -> int:
        """Return where the number of an argument stands."""
        index = self.pte.instructions.index(call)
        at = self.pte.chain_at + 4 * index
        instruction = Table(self.pte.program, at + read_number(self.pte.program, at, "I"))
        return instruction.table(1).vector(1)[0] + 4 * place

    def write_argument(self, call, place: int, value: int) -> None:
        write_number(self.content, self.argument_at(call, place), "i", value)

    def constant_at(self, value: int) -> int:
        return self.pte.segments_at + self.pte.constant_at(self.pte.tensors[value].constant)

    def nodes(self, delegate: int) -> list[tuple[int, Table]]:
        """Return a delegate's nodes, each with the place where its delegate stands in the file."""
        segment = self.pte.segments[self.pte.delegates[delegate][1]]
        begin = self.pte.segments_at + segment.offset
        data = bytes(self.content[begin : begin + segment.size_bytes])
        graph = Table.root(data, read_number(data, 10, "I"))
        return [(begin, node) for node in graph.tables(1)]

    def node(self, delegate: int, kind: int, index: int) -> tuple[int, Table]:
        found = [each for each in self.nodes(delegate) if each[1].number(0, "B") == kind]
        return found[index]

    def write(self) -> Path:
        self.path.write_bytes(self.content)
        return self.path


def smaller_epsilon(edited: Edited) -> None:
    last = [call for call in edited.pte.calls if call.delegate >= 0][-1]
    (single,) = (v for v in last.arguments if edited.pte.tensors[v].sizes == (1,))
    at = edited.constant_at(single)
    edited.content[at : at + 4] = np.float32(1.2e-5).tobytes()


def without_causality(edited: Edited) -> None:
    call = edited.call("llama::custom_sdpa.out", 1)
    at = edited.pte.values[call.arguments[6]].table(1).place(0)
    edited.content[at] = 0


def later_start(edited: Edited) -> None:
    """Let a cache be written at the end of the new tokens."""
    call = edited.call("llama::update_cache.out", 2)
    end = edited.call("executorch_prim::add.Scalar").arguments[-1]
    edited.write_argument(call, 2, end)


def residual_of_two_layers_before(edited: Edited) -> None:
    first, _, third = [call for call in edited.pte.calls if call.delegate >= 0][:3]
    place = next(p for p, v in enumerate(third.arguments) if len(_sizes(edited, v)) == 3)
    edited.write_argument(third, place, first.arguments[0])


def _sizes(edited: Edited, value: int) -> tuple[int, ...]:
    tensor = edited.pte.tensors.get(value)
    return () if tensor is None else tensor.sizes


def product_for_sum(delegate: int, index: int):
    """Turn an addition inside a delegate into a product."""

    def edit(edited: Edited) -> None:
        begin, node = edited.node(delegate, ADD, index)
        edited.content[begin + node.place(0)] = MULTIPLY

    return edit


def square_of_another(edited: Edited) -> None:
    """Let the last norm square what was before the last sum."""
    squares = [each for each in edited.nodes(2) if each[1].number(0, "B") == MULTIPLY]
    begin, node = next(e for e in reversed(squares) if _one(e[1], 0) == _one(e[1], 1))
    first = next(e for e in squares if _one(e[1], 0) == _one(e[1], 1))[1]
    write_number(edited.content, begin + node.table(1).place(1), "I", _one(first, 0))


def _one(node: Table, field: int) -> int:
    return node.table(1).number(field, "I")


def heads_another_way(edited: Edited) -> None:
    begin, node = edited.node(0, 20, 0)
    start, _ = node.table(1).vector(1)
    heads, size = (read_number(node.data, start + 4 * axis, "I") for axis in (2, 3))
    write_number(edited.content, begin + start + 8, "I", size)
    write_number(edited.content, begin + start + 12, "I", heads)


BYTES = {
    "epsilon of the last norms": (smaller_epsilon, "", "epsilon is 1.2e-05"),
    "without causality": (without_causality, "", "is_causal is 0"),
    "a later slot": (later_start, "llama::update_cache.out of key 1, key_cache_1, end", ""),
    "an older residual": (residual_of_two_layers_before, "delegate 2", ""),
    "a product for a sum": (product_for_sum(1, 0), "delegate 1: its operator 3, Multiply", ""),
    "a product for a rotation's sum": (product_for_sum(0, 1), "delegate 0: its operator", ""),
    "the square of another value": (square_of_another, "delegate 2: its operator", ""),
    "heads taken another way": (heads_another_way, "delegate 0: its operator 8, Static", ""),
}


@pytest.mark.parametrize("name", BYTES)
def test_a_changed_program_is_named(tiny, tmp_path, name):
    edit, stranger, setting = BYTES[name]
    edited = Edited(Path(shutil.copy(tiny.path, tmp_path / "model.pte")))
    edit(edited)
    wiring = wiring_of(edited.write(), tiny)
    wrong = [each for each in wiring.attributes if not each.is_right]
    if setting:
        assert any(setting == f"{e.name} is {e.found:.7g}" for e in wrong), wrong
        assert wiring.strangers == ()
    else:
        assert any(stranger in each for each in wiring.strangers), wiring.strangers


def test_a_lookup_of_other_ids_is_run_as_it_is(tiny, tmp_path):
    """The table's rows by other codes: what is cut is the artifact's own program."""
    edited = Edited(Path(shutil.copy(tiny.path, tmp_path / "model.pte")))
    codes = edited.call(LOOKUP).arguments[0]
    width = edited.pte.tensors[codes].sizes[1]
    at = edited.constant_at(codes)
    one, other = (slice(at + row * width, at + (row + 1) * width) for row in IDS[1:3])
    edited.content[one], edited.content[other] = edited.content[other], edited.content[one]
    for rows in rows_of(edited.write(), tiny).values():
        wrong = (rows != table_of(tiny)).any(axis=1)
        assert wrong.tolist() == [False, True, True, False, False]


def test_a_residual_that_a_delegate_computes_cannot_be_cut_and_says_so(tiny, tmp_path):
    edited = Edited(Path(shutil.copy(tiny.path, tmp_path / "model.pte")))
    first, second = [call for call in edited.pte.calls if call.delegate >= 0][:2]
    place = next(p for p, v in enumerate(second.arguments) if len(_sizes(edited, v)) == 3)
    edited.write_argument(second, place, first.arguments[-1])
    with pytest.raises(BundleError, match="does not come from the ids alone"):
        rows_of(edited.write(), tiny)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (TINY, {}),
        pytest.param(TINY, {"kv_cache": "io", "all_logits": True}, marks=pytest.mark.slow),
        pytest.param(TINY, {"kv_dtype": "float16"}, marks=pytest.mark.slow),
        pytest.param(TINY, {"share_table": False}, marks=pytest.mark.slow),
        pytest.param(UNTIED, {}, marks=pytest.mark.slow),
        pytest.param(one_layer(), {}, marks=pytest.mark.slow),
    ],
    ids=["state", "io", "float16 cache", "two tables", "untied", "one layer"],
)
def test_a_sound_program_of_each_form_is_followed_whole(workshop, config, options):
    made = workshop.tiny(config, **options)
    wiring = wiring_of(made.path, made)
    assert wiring.strangers == ()
    assert all(each.is_right for each in wiring.attributes)
    assert len(wiring.attributes) == 6 * config.num_hidden_layers + 1
    found = rows_of(made.path, made)
    assert len(found) == 2
    for rows in found.values():
        np.testing.assert_array_equal(rows, table_of(made))


@pytest.mark.slow
def test_rows_of_int8_weights_are_followed_too(workshop):
    made = workshop.tiny(TINY, INT8_ROWS)
    assert wiring_of(made.path, made).strangers == ()
