"""A token table of int4 groups in a `.pte`: what it computes, where it lies, and its faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("executorch", reason="executorch is not installed (the extra 'executorch')")
from artifacts.executorch_artifacts import INT4_TABLE, TINY, UNTIED, Artifact
from artifacts.executorch_artifacts import workshop as workshop
from artifacts.pte_faults import Edited
from artifacts.tiny import random_tokens

from llama_export.errors import BundleError
from llama_export.targets.executorch.reading.describe import describe
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.read_back import read_back
from llama_export.targets.executorch.reading.weights import INT4_LOOKUP, LOOKUP, read_weights
from llama_export.targets.executorch.reading.wiring import read_wiring
from llama_export.targets.executorch.running.lookup import ExecutorchLookup
from llama_export.targets.executorch.running.session import ExecutorchSession
from llama_export.targets.executorch.running.shared_table import shared_keys
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.measure.metrics import compare_logits

pytestmark = [pytest.mark.executorch, pytest.mark.usefixtures("one_thread")]

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CHOOSE = "aten::index_select.out"
IDS = list(range(TINY.vocab_size))


@pytest.fixture(scope="module", params=[TINY, UNTIED], ids=["tied", "untied"])
def made(request, workshop) -> Artifact:
    return workshop.tiny(request.param, INT4_TABLE)


@pytest.fixture(scope="module")
def tied(workshop) -> Artifact:
    return workshop.tiny(TINY, INT4_TABLE)


def rows_of(path: Path, artifact: Artifact):
    lookup = ExecutorchLookup.open(StoredArtifact(path, artifact.spec))
    found = lookup.rows(IDS)
    lookup.close()
    return found


def wiring_of(path: Path, artifact: Artifact):
    return read_wiring(Pte.open(path), artifact.config, artifact.spec)


def test_it_computes_what_the_eager_model_computes_that_rounds_alike(made):
    tokens = random_tokens(made.config, 40)
    expected = made.expected(tokens)
    found = made.session().prefill(tokens)[None]
    # A tipped rounding is all that may differ; without the rounding it differs more.
    assert compare_logits(expected[-1:], found).kl_max < 2e-3
    assert np.argmax(found) == np.argmax(expected[-1])
    assert compare_logits(expected[:1], found).kl_max > 1e-2


def test_every_row_is_the_tables(made):
    expected = made.weights.dequantized(TABLE).numpy()
    for rows in rows_of(made.path, made).values():
        assert np.array_equal(rows, expected)


def test_codes_and_scales_are_read_back(made):
    found = read_back(made.path).quantized
    for name in (TABLE, HEAD):
        tensor = made.weights.get(made.weights.storage_name(name))
        assert tensor.scheme.label == "int4 g32"
        assert found[name] == (tensor.codes_sha256(), tensor.scales_sha256())


def test_the_codes_are_stored_once_where_they_are_tied(made):
    pte = Pte.open(made.path)
    tied = made.config.tie_word_embeddings
    codes, _ = read_weights(pte).lookup
    place = (pte.constant_at(codes.constant), codes.size_bytes)
    assert list(shared_keys(pte).values()) == ([place] if tied else [])
    sizes = {part.kind: part.size_bytes for part in describe(made.stored).parts}
    weights = made.config.vocab_size * made.config.hidden_size
    assert sizes["int4 table"] == weights // 2 * (1 if tied else 2)
    assert "int8 table" not in sizes


def test_every_instruction_is_known(made):
    wiring = wiring_of(made.path, made)
    assert wiring.strangers == ()
    assert all(each.is_right for each in wiring.attributes)
    operators = [call.operator for call in Pte.open(made.path).calls]
    assert (operators.count(INT4_LOOKUP), operators.count(CHOOSE)) == (1, 1)
    assert LOOKUP not in operators


def edited(artifact: Artifact, folder: Path) -> Edited:
    return Edited(Path(shutil.copy(artifact.path, folder / "model.pte")))


def test_columns_that_change_places_otherwise_are_named(tied, tmp_path):
    """The neighbours as they came: the operator's own order, which is not the table's."""
    changed = edited(tied, tmp_path)
    at = changed.constant_at(changed.call(CHOOSE).arguments[2])
    columns = np.arange(TINY.hidden_size)
    changed.content[at : at + columns.nbytes] = columns.tobytes()
    strangers = wiring_of(changed.write(), tied).strangers
    assert any(
        f"{CHOOSE} of hidden 0, neighbours swapped, 2, other columns" in e for e in strangers
    )
    expected = tied.weights.dequantized(TABLE).numpy()
    for rows in rows_of(changed.path, tied).values():
        assert not np.array_equal(rows, expected)
        assert np.array_equal(rows[:, columns ^ 1], expected)


@pytest.mark.parametrize(("place", "other"), [(0, 1), (1, 0)], ids=["codes", "scales"])
def test_a_lookup_of_another_type_is_named(tied, tmp_path, place, other):
    """The kernel would end the process."""
    changed = edited(tied, tmp_path)
    call = changed.call(INT4_LOOKUP)
    changed.write_argument(call, place, call.arguments[other])
    strangers = wiring_of(changed.write(), tied).strangers
    kind = changed.pte.tensors[call.arguments[other]].scalar_type
    assert f"value {call.arguments[other]} (no name) is of type {kind}" in strangers


def test_a_changed_code_or_scale_is_another_weight(tied, tmp_path):
    right = read_back(tied.path).quantized[TABLE]
    for place in (0, 1):
        changed = edited(tied, tmp_path)
        at = changed.constant_at(changed.call(INT4_LOOKUP).arguments[place])
        changed.content[at] ^= 1
        found = read_back(changed.write()).quantized[TABLE]
        assert [one == other for one, other in zip(found, right, strict=True)] == [
            place != 0,
            place != 1,
        ]


def test_a_changed_shared_table_is_not_opened(tied, tmp_path):
    changed = edited(tied, tmp_path)
    (offset, _) = next(iter(shared_keys(changed.pte).values()))
    changed.content[changed.pte.segments_at + offset] ^= 1
    with pytest.raises(BundleError, match="the tied table is not what"):
        ExecutorchSession.open(StoredArtifact(changed.write(), tied.spec))
