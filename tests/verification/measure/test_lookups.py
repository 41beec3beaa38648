"""What is looked up is compared row by row, in batches, at each of its consumers."""

from __future__ import annotations

import numpy as np
import pytest
from artifacts import tiny, verifiable

from llama_export.errors import BundleError
from llama_export.targets.wiring import Attribute, Wiring
from llama_export.verification.measure import lookups as measuring

SPECIAL = tiny.TINY.bos_token_id


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return verifiable.make(tmp_path_factory.mktemp("made"), tiny.TINY)


def row_of(made, **changes):
    return verifiable.verify(made, **changes).row("lookups")


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_a_special_token_with_the_row_of_another_is_red(made, quick):
    lookup = verifiable.FakeLookup(made.model, {SPECIAL: SPECIAL + 1})
    row = row_of(made, lookup=lookup, quick=quick)
    assert row.passed is False
    assert row.note == f"in the first norm: {SPECIAL} gets the row of {SPECIAL + 1}"
    assert row_of(made, quick=quick).passed


def test_batches_of_one_row_find_the_same(made, monkeypatch):
    lookup = verifiable.FakeLookup(made.model, {3: 4, 500: 1})
    whole = row_of(made, lookup=lookup)
    monkeypatch.setattr(measuring, "_BATCH_ELEMENTS", 1)
    assert row_of(made, lookup=lookup) == whole
    assert whole.value == 2


def test_a_consumer_that_gets_other_rows_is_named(made):
    class OtherSum(verifiable.FakeLookup):
        def rows(self, input_ids):
            return super().rows(input_ids) | {
                "the first sum": super().rows(input_ids)["the first sum"] * 2
            }

    row = row_of(made, lookup=OtherSum(made.model))
    assert row.value == tiny.TINY.vocab_size
    assert row.note.startswith("in the first sum: 0, 1")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_red(made, value):
    class NoNumber(verifiable.FakeLookup):
        def rows(self, input_ids):
            return {"the first norm": np.full((len(input_ids), tiny.TINY.hidden_size), value, "f4")}

    assert row_of(made, lookup=NoNumber(made.model)).value == tiny.TINY.vocab_size


def test_rows_of_another_shape_are_red(made):
    class Narrow(verifiable.FakeLookup):
        def rows(self, input_ids):
            return {name: rows[:, :8] for name, rows in super().rows(input_ids).items()}

    assert row_of(made, lookup=Narrow(made.model)).value == tiny.TINY.vocab_size


def test_fewer_rows_than_ids_are_red(made):
    class Short(verifiable.FakeLookup):
        def rows(self, input_ids):
            return {name: rows[:0] for name, rows in super().rows(input_ids).items()}

    assert row_of(made, lookup=Short(made.model)).passed is False


def test_a_lookup_that_cannot_be_run_is_red(made):
    class Broken(verifiable.FakeLookup):
        def rows(self, input_ids):
            message = "it does not run"
            raise BundleError(message)

    row = row_of(made, lookup=Broken(made.model))
    assert row.passed is False
    assert row.note.endswith("it does not run")


def test_what_cannot_be_looked_up_or_followed_is_not_checked(made):
    report = verifiable.verify(made, lookup=None, wiring=None)
    assert report.passed
    assert {"lookups", "wiring", "attributes"} <= {row.key for row in report.unmade}
    assert "no quantised weights" in row_of(made, weights=None).note


def test_a_stranger_and_a_wrong_setting_are_red(made):
    wrong = Wiring(("a Min",), 1, (Attribute("model.norm", "epsilon", 1.2e-5, 1e-5),))
    report = verifiable.verify(made, wiring=wrong)
    assert report.row("wiring").note == "first: a Min"
    assert report.row("attributes").note == (
        "first: model.norm: epsilon is 1.2e-05, expected 1e-05"
    )
    assert not report.passed


@pytest.mark.parametrize(
    ("found", "expected", "right"),
    [
        (float(np.float32(1e-5)), 1e-5, True),
        (1.0001e-5, 1e-5, False),
        (0.0, 0, True),
        (1e-30, 0, False),
        ("none", "none", True),
        (1.0, "not written", False),
        (float("nan"), 1e-5, False),
    ],
)
def test_a_setting_is_right_as_far_as_it_can_be_stored(found, expected, right):
    assert Attribute("model.norm", "epsilon", found, expected).is_right is right
