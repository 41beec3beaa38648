"""The phones that are known: the file, its check, and the arithmetic of what fits them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

import check_phones
from llama_export.errors import LlamaExportError
from llama_export.exporting import phones
from llama_export.exporting.phones import (
    PHONES_FILE,
    Allowance,
    Phone,
    known_phones,
    read_phones,
)

NEXT_DAY = date(2026, 11, 30)


@pytest.fixture
def raw():
    return json.loads(PHONES_FILE.read_text("utf-8"))


@pytest.fixture
def write(tmp_path):
    def write(raw) -> Path:
        path = tmp_path / "phones.json"
        path.write_text(json.dumps(raw), "utf-8")
        return path

    return write


def named(raw, name):
    (row,) = (row for row in raw["phones"] if row["name"] == name)
    return row


def test_the_packages_own_phones_are_sound():
    known = known_phones()
    assert check_phones.faults_of(known, NEXT_DAY, max_age_months=0) == []
    assert all(phone.sources for phone in known.phones)
    by_name = {phone.name: phone for phone in known.phones}
    assert by_name["Galaxy S22"].bandwidth == 51.2e9
    assert by_name["Galaxy S25"].bandwidth == 76.8e9
    assert [by_name[name].derived for name in ("Galaxy S22", "Galaxy S25")] == [True, False]
    assert {"iPhone 17", "iPhone Air", "Pixel 10", "Galaxy S26 (Snapdragon)"} <= set(by_name)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda raw: raw.pop("as_of"), "the file: expected the keys .*as_of"),
        (lambda raw: raw.update(more=1), "found .*'more'"),
        (lambda raw: raw.update(format_version=2), "format_version: expected 1, found 2"),
        (lambda raw: raw.update(as_of="yesterday"), "yesterday"),
        (lambda raw: raw.update(phones=[]), "phones: expected a list, not empty"),
        (lambda raw: raw["phones"].append(3), r"phones\[\d+\]: expected the keys .*, found 3"),
        (lambda raw: raw["phones"].append(raw["phones"][0]), "there twice: iPhone 13"),
        (lambda raw: raw["phones"][0].pop("note"), r"phones\[0\]: expected the keys"),
        (lambda raw: raw["phones"][0].update(name=""), "name: expected a str, not empty"),
        (lambda raw: raw["phones"][0].update(system="Symbian"), "iPhone 13: system: expected one"),
        (lambda raw: raw["phones"][0].update(memory_gib=4.5), "memory_gib: expected a int"),
        (lambda raw: raw["phones"][0].update(memory_gib=True), "memory_gib: expected a int"),
        (lambda raw: raw["phones"][0].update(memory_gib=-4), "expected more than 0, found -4"),
        (lambda raw: raw["phones"][0].update(memory_kind=5), "memory_kind: expected a str"),
        (lambda raw: raw["phones"][0].update(peak={"bus_bits": 64}), "peak: expected the keys"),
        (lambda raw: raw["phones"][0].update(peak=34.1), "peak: expected the keys"),
        (lambda raw: raw["phones"][0].update(sources=[]), "sources: expected a list, not empty"),
        (lambda raw: raw["phones"][0].update(sources=["x"]), r"expected names of .*\['x'\]"),
        (lambda raw: raw["pages"].update(x="https://x.org/"), "nothing names: x"),
        (lambda raw: raw["pages"].update(a15=raw["pages"]["a18"]), "twice: a15, a18"),
        (lambda raw: raw["app_memory"]["sure"].update(share=1.5), "expected at most 1, found 1.5"),
        (lambda raw: raw["app_memory"].pop("sources"), "app_memory: expected the keys"),
    ],
)
def test_a_file_that_is_not_as_it_was_made_is_refused(raw, write, change, match, capsys):
    assert read_phones(write(raw)) == known_phones()
    change(raw)
    path = write(raw)
    with pytest.raises(ValueError, match=match):
        read_phones(path)
    assert check_phones.main([str(path)], NEXT_DAY) == 1
    assert str(path) in capsys.readouterr().err


def test_a_damaged_package_is_named(monkeypatch, tmp_path):
    path = tmp_path / "phones.json"
    monkeypatch.setattr(phones, "PHONES_FILE", path)
    for content in (None, '{"as_of": 1, "as_of": 2}'):
        if content is not None:
            path.write_text(content)
        with pytest.raises(LlamaExportError, match=r"phones\.json, a file of") as caught:
            known_phones.__wrapped__()
        assert "install" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda raw: raw["phones"].reverse(), "iOS comes before Android"),
        (lambda raw: raw["phones"].insert(0, raw["phones"].pop(1)), None),
        (lambda raw: raw["phones"].insert(0, raw["phones"].pop(3)), "which is newer"),
        (lambda raw: raw["phones"].append(raw["phones"].pop(12)), "apart from the others"),
        (lambda raw: raw["phones"][0].update(memory_gib=4000), "a memory of 4000 GiB"),
        (
            lambda raw: raw["phones"][0].update(peak={"published_gb_per_s": 341.0}),
            "a peak of 341.0 GB/s",
        ),
        (lambda raw: raw["pages"].update(a15="http://x.org/"), "no https page: http://x.org/"),
        (lambda raw: raw["app_memory"]["sure"].update(share=1.0), "sure of more"),
        (lambda raw: raw.update(as_of="2026-12-01"), "which is after today"),
        (lambda raw: raw.update(as_of="2026-10-29"), "1 months ago; at most 0 are allowed"),
    ],
)
def test_the_check_finds_what_no_reader_would(raw, write, change, fault, capsys):
    change(raw)
    code = check_phones.main([str(write(raw)), "--max-age-months", "0"], NEXT_DAY)
    said = capsys.readouterr().err
    assert (code, said) == (0, "") if fault is None else (code, fault in said) == (1, True)


def test_an_old_file_is_named_and_a_fault_only_when_asked(raw, write, capsys):
    raw["as_of"] = "2026-05-30"
    path = str(write(raw))
    assert check_phones.main([path], NEXT_DAY) == 0
    assert "that is old" in capsys.readouterr().err
    assert check_phones.main([path, "--max-age-months", "6"], NEXT_DAY) == 0
    assert check_phones.main([path, "--max-age-months", "5"], NEXT_DAY) == 1
    assert check_phones.age_in_months(date(2025, 12, 31), date(2026, 1, 30)) == 0
    assert check_phones.age_in_months(date(2026, 1, 30), date(2025, 12, 31)) == -1


def test_what_an_app_may_take_and_how_fast_it_decodes():
    sure, likely = Allowance(0.375, 3_300_000_000), Allowance(0.75, 8_000_000_000)
    assert (known_phones().sure, known_phones().likely) == (sure, likely)

    def phone(memory_bytes: int) -> Phone:
        takes = sure.of(memory_bytes), likely.of(memory_bytes)
        return Phone("x", "iOS", memory_bytes, None, 50e9, False, *takes, None, ("https://a.b/",))

    sizes = (3 * 10**9, 3_000_000_001, 6 * 10**9, 7 * 10**9)
    found = [phone(8 * 10**9).verdict(size) for size in sizes]
    assert found == ["yes", "perhaps", "perhaps", "no"]
    assert phone(12 * 10**9).verdict(3_300_000_001) == "perhaps"
    assert phone(16 * 10**9).verdict(8_000_000_001) == "no"
    assert phone(8 * 10**9).tokens_per_s(10**9) == 50
    assert replace(phone(8 * 10**9), bandwidth=None).tokens_per_s(10**9) is None
