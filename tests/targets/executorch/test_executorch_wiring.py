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
from artifacts.pte_faults import BYTES, Edited, sizes_of

from llama_export.errors import BundleError
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
    "ids clipped": ("_lookup(tokens)", "_lookup(tokens.clamp(max=300))", "clamp", True),
    "ids by remainder": ("_lookup(tokens)", "_lookup(tokens % 500)", "remainder", True),
    "rows scaled": ("_lookup(tokens)", "_lookup(tokens) * 1.001", "mul", True),
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
    place = next(p for p, v in enumerate(second.arguments) if len(sizes_of(edited, v)) == 3)
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
