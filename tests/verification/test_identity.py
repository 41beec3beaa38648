"""What a report says that it is of."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest
from artifacts.sample_bundle import DRAFT

from llama_export.errors import UsageError
from llama_export.system.machine import Machine
from llama_export.verification.identity import identify
from llama_export.version import __version__


def test_it_names_the_weights_their_source_and_what_ran(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = {**DRAFT.created_with, "not-installed-anywhere": "1.0"}
    found = identify(
        replace(DRAFT, created_with=made), methods=["b", "a", "a"], command="llama-export verify x"
    )
    assert (found.recipe, found.group_size, found.bits_per_weight) == ("int4", 32, 4.97)
    assert found.methods == ("a", "b")
    assert found.source == "meta-llama/Llama-3.2-1B"
    assert found.commit == DRAFT.model.revision
    assert found.versions["llama-export"] == __version__
    assert found.versions["python"] == platform.python_version()
    assert "torch" in found.versions
    assert "not-installed-anywhere" not in found.versions
    assert found.exported_with == made
    assert found.date == "2023-11-14T22:13:20Z"
    assert found.command == "llama-export verify x"
    assert found.to_json()["calibration"] is None


def test_the_same_call_gives_the_same_identity_and_no_date_by_itself(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert identify(DRAFT) == identify(DRAFT)
    assert identify(DRAFT).date is None
    assert identify(DRAFT).to_json()["command"] is None


def test_a_local_model_is_named_without_a_commit():
    local = replace(DRAFT.model, hub_id=None, revision=None)
    found = identify(replace(DRAFT, model=local))
    assert (found.source, found.commit) == (DRAFT.model.name, None)


def test_a_calibration_is_named_by_its_text():
    calibration = {"method": "gptq", "tokens": 512, "ids_sha256": "5a" * 32}
    quantization = {**DRAFT.quantization, "calibration": calibration}
    assert identify(replace(DRAFT, quantization=quantization)).calibration == calibration


@pytest.mark.parametrize("seconds", ["yesterday", "1.5", "9" * 40])
def test_a_date_that_is_none_is_refused(monkeypatch, seconds):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        identify(DRAFT)


def test_the_processor_has_a_name():
    assert Machine().processor()
