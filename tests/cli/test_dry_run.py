"""The plan that --dry-run shows, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from artifacts.estimates import estimated
from artifacts.small_bundle import FakeMachine, export_small

from llama_export.cli.dry_run import long_calibration
from llama_export.exporting.calibration_cost import CalibrationCost
from llama_export.exporting.phones import known_phones
from llama_export.sources.resolve import ALIASES

pytestmark = pytest.mark.usefixtures("empty_cache")
DRY_RUN = ("--target", "onnx", "--model", "3.2-3B", "--dry-run")


def test_a_dry_run_writes_nothing(command, no_network, plenty, tmp_path):
    code, out, _ = command(*DRY_RUN, "--output", tmp_path / "out")
    assert code == 0
    assert not (tmp_path / "out").exists()
    assert "2.00 GB" in out
    assert "iPhone 15 Pro" in out
    as_of = known_phones().as_of.isoformat()
    assert f"The phones are as of {as_of}." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = command(*DRY_RUN, "--output", tmp_path / "out", "--json")
    plan = json.loads(out)
    assert (code, plan["resources"]["fits"], plan["resources"]["problems"]) == (0, True, [])
    assert plan["estimate"]["disk_bytes"] == pytest.approx(2 * 1.99e9, rel=0.01)
    assert plan["phones_as_of"] == as_of
    (phones,) = plan["phones"]
    rows = {row["name"]: row for row in phones["rows"]}
    assert rows["iPhone 13"]["fits"] == "perhaps"
    assert rows["iPhone 15 Pro"]["fits"] == "yes"
    read = phones["read_bytes_per_token"]
    assert rows["iPhone 13"]["tokens_per_s_bound"] == pytest.approx(34.1e9 / read)


@pytest.mark.parametrize(
    ("machine", "code", "message"),
    [
        (FakeMachine(free_disk=10**9), 11, "are free"),
        (FakeMachine(memory=4 * 10**9, available=3 * 10**9), 10, "of memory"),
        (FakeMachine(memory=8 * 10**9, available=3 * 10**9), 0, "of memory"),
    ],
    ids=["disk", "memory", "memory in use"],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_shows_the_plan_and_refuses(
    command, no_network, monkeypatch, tmp_path, machine, code, message, as_json
):
    monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda: machine)
    options = [*DRY_RUN, "--output", tmp_path / "out", *(["--json"] if as_json else [])]
    found, out, err = command(*options)
    assert found == code
    assert message in err
    assert "Traceback" not in err
    if as_json:
        room = json.loads(out)["resources"]
        assert room["fits"] is (code == 0)
        assert len(room["problems"]) == 1
    else:
        assert "2.00 GB" in out


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--max-context", "0"], 2),
        (["--max-context", "200000"], 2),
        (["--group-size", "33"], 9),
        (["--quantize", "bf16", "--group-size", "32"], 9),
        (["--quantize", "bf16", "--table", "int4"], 9),
    ],
)
def test_a_dry_run_refuses_what_an_export_would(command, plenty, tmp_path, options, code):
    found, out, err = command(*DRY_RUN, "--output", tmp_path / "out", *options)
    assert (found, out) == (code, "")
    assert "error" in err


@pytest.mark.parametrize("place", ["onnx", "weights"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_refuses_an_output_that_exists(
    command, no_network, plenty, tmp_path, place, as_json
):
    taken = tmp_path / "out" / place
    taken.mkdir(parents=True)
    options = [*DRY_RUN, "--output", tmp_path / "out", *(["--json"] if as_json else [])]
    code, out, err = command(*options, columns=200)
    assert code == 11
    assert f"{taken} already exists" in err
    assert "--force" in err
    if as_json:
        room = json.loads(out)["resources"]
        assert (room["fits"], room["problems"]) == (False, [f"{taken} already exists"])
    else:
        assert f"{taken} already exists" in out
    code, out, _ = command(*options, "--force", columns=200)
    assert code == 0
    assert "already exists" not in out
    (taken / "diary.txt").write_text("mine")
    assert command(*options, "--force")[0] == 11


def test_weights_that_are_not_kept_are_not_in_the_way(command, no_network, plenty, tmp_path):
    (tmp_path / "out" / "weights").mkdir(parents=True)
    assert command(*DRY_RUN, "--output", tmp_path / "out", "--no-keep-weights")[0] == 0


def test_a_download_takes_room_on_the_disk_of_the_output(
    command, no_network, monkeypatch, tmp_path
):
    found = estimated("3.2-3B")
    both = found.disk_bytes + found.download_bytes
    for free, expected in ((both, 0), (both - 1, 11)):
        machine = FakeMachine(free_disk=free)
        monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda machine=machine: machine)
        code, out, err = command(*DRY_RUN, "--output", tmp_path / "out", columns=300)
        assert code == expected
        assert f"6.43 GB to {tmp_path / 'hub'}" in out
        assert ("its download 6.43 GB" in err) is (code == 11)
        assert ("HF_HOME" in err) is (code == 11)


def test_what_is_in_the_cache_needs_no_room(
    command, no_network, monkeypatch, tmp_path, empty_cache
):
    found = estimated("3.2-3B")
    machine = FakeMachine(free_disk=found.disk_bytes)
    monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda: machine)
    options = (*DRY_RUN, "--output", tmp_path / "out")
    assert command(*options)[0] == 11
    blobs = empty_cache / f"models--{ALIASES['3.2-3B'].replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "whole").open("wb") as file:
        file.truncate(found.download_bytes)  # a hole takes no space
    code, out, _ = command(*options)
    assert code == 0
    assert "in the hub's cache" in out
    room = json.loads(command(*options, "--json")[1])["resources"]
    assert room["download_bytes"] == 0


def test_phones_that_a_model_does_not_fit_have_no_speed(command, no_network, plenty, tmp_path):
    options = ("--target", "onnx", "--model", "3.1-8B", "--dry-run", "--output", tmp_path / "out")
    _, out, _ = command(*options)
    (line,) = (line for line in out.splitlines() if "iPhone 13 " in line and "Pro" not in line)
    assert "no" in line
    assert "tokens/s" not in line
    rows = json.loads(command(*options, "--json")[1])["phones"][0]["rows"]
    assert {row["fits"] for row in rows if row["tokens_per_s_bound"]} <= {"yes", "perhaps"}
    assert any(row["tokens_per_s_bound"] for row in rows)


def test_a_phone_is_judged_by_the_target_that_it_would_run(command, no_network, plenty, tmp_path):
    def judged(target):
        options = ("--target", target, "--model", "3.2-1B", "--dry-run", "-o", tmp_path / "out")
        tables = json.loads(command(*options, "--json")[1])["phones"]
        return {each["target"]: {row["system"] for row in each["rows"]} for each in tables}

    assert judged("all") == {"executorch": {"Android"}, "coreml": {"iOS"}}
    assert judged("onnx,executorch") == {"executorch": {"Android", "iOS"}}
    assert judged("onnx,coreml") == {"onnx": {"Android"}, "coreml": {"iOS"}}
    assert judged("coreml") == {"coreml": {"iOS"}}
    out = command("--target", "all", "--model", "3.2-1B", "--dry-run", "-o", tmp_path / "out")[1]
    assert out.count("Phones that would run") == 2
    assert "together" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_second_recipe_is_refused_by_the_plan(command, plenty, tmp_path):
    output = export_small(tmp_path)
    options = ("--target", "onnx", "--model", output / "weights", "-o", tmp_path / "again")
    for more in (("--quantize", "int8"), ("--group-size", "64"), ("--table", "int8")):
        code, out, err = command(*options, "--dry-run", *more)
        assert (code, out) == (2, "")
        assert "is quantised already, as int4" in err
    assert command(*options, "--dry-run")[0] == 0


def test_a_model_in_the_caches_has_no_phones(command, plenty, tmp_path):
    options = ("--target", "onnx", "--model", "demo", "--dry-run", "--output", tmp_path / "out")
    code, out, _ = command(*options)
    assert code == 0
    assert "Phone" not in out
    assert json.loads(command(*options, "--json")[1])["phones"] == []


def test_a_dry_run_and_an_export_say_what_a_calibration_takes(
    command, no_network, plenty, tmp_path
):
    good = (*DRY_RUN, "--quality", "good", "--output", tmp_path / "out")
    _, out, _ = command(*good)
    assert max(map(len, out.splitlines())) <= 80
    told = " ".join(out.replace("│", " ").split())
    assert re.search(
        r"calibration:? about [\d.]+ (h|min), 2\.\d+ GB of memory, \d+\.\d+ GB of disk; "
        "--quality fast does without",
        told,
    )
    _, out, _ = command(*good, "--json")
    found = json.loads(out)["estimate"]["calibration"]
    assert set(found) == {"tokens", "elapsed_s", "memory_bytes", "scratch_bytes"}
    assert found["tokens"] == 32768
    _, out, _ = command(*DRY_RUN, "--quality", "fast", "--output", tmp_path / "out", "--json")
    assert json.loads(out)["estimate"]["calibration"] is None


def test_an_export_announces_a_calibration_that_one_waits_for():
    short = replace(estimated("demo"), calibration=CalibrationCost(512, 20.0, 10**9, 10**9, 2048))
    assert long_calibration(estimated("demo")) is None
    assert long_calibration(short) is None
    long = replace(short, calibration=CalibrationCost(512, 1690.0, 2 * 10**9, 4 * 10**9, 2048))
    assert long_calibration(long) == (
        "the calibration takes about 28 min, 2.00 GB of memory, 4.00 GB of disk; "
        "--quality fast does without"
    )
