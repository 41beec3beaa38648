"""Estimates against real bundles and what was measured; what does not fit; list and dry run."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.opened import footprint_of
from artifacts.small_bundle import FakeMachine, export_small
from artifacts.tiny import TINY, UNTIED, write_checkpoint
from fakes.hub import COMMIT, REPOSITORY, Hub, nothing_of_this_machine, serve

from llama_export.bundle.bundle import Bundle
from llama_export.errors import CheckpointError, ConfigError, HubError, OutputError, UsageError
from llama_export.exporting.estimate import choose_context, estimate, memory_bytes
from llama_export.exporting.phones import PHONES, Phone, derived_bandwidth
from llama_export.exporting.resources import look_for_resources
from llama_export.sources.catalogue import Download, known_models, shape_of
from llama_export.sources.resolve import ALIASES
from llama_export.targets import registry
from llama_export.targets.onnx.options import OnnxOptions
from llama_export.targets.registry import TARGETS
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe


def estimated(model: str, name: str = "int4", group_size: int | None = None, **choices):
    shape = shape_of(model)
    context = choices.pop("max_context", None)
    options = {"verify": True, "cores": 2} | choices
    used = shape.recipe or recipe(name, group_size)
    return estimate(shape, ("onnx",), used, context, {"onnx": OnnxOptions()}, **options)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture
def no_network(monkeypatch):
    def fail(*_arguments, **_options):
        pytest.fail("a known name needs no network")

    monkeypatch.setattr("llama_export.sources.catalogue.fetch", fail)


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("config", "name", "group_size", "max_context"),
    [(TINY, "int4", None, None), (UNTIED, "bf16", None, 300), (UNTIED, "int8", 64, 300)],
    ids=["int4", "bf16 untied", "int8 g64 untied"],
)
def test_an_estimate_is_what_an_export_writes(tmp_path, config, name, group_size, max_context):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    choices = {"group_size": group_size, "max_context": max_context}
    output = export_small(tmp_path, config, recipe=name, **choices)
    found = estimated(str(tmp_path / "tiny"), name, **choices)
    (target,) = found.targets
    real = footprint_of(Bundle.open(output / "onnx"))
    guessed = {part.kind: part for part in target.footprint.parts}
    for part in real.parts:
        if part.kind != "graph":
            assert guessed.pop(part.kind) == part
    assert set(guessed) == {"graph"}
    assert target.footprint.kv_bytes_per_token == real.kv_bytes_per_token
    assert target.bundle_bytes == pytest.approx(size_of(output / "onnx"), rel=0.01)
    assert found.weights_bytes == pytest.approx(size_of(output / "weights"), rel=0.02)
    # The weights folder as a source: it is there already, and its own recipe counts.
    again = estimated(str(output / "weights"), "int4", max_context=max_context)
    assert (again.weights_bytes, again.recipe) == (0, name)
    assert again.targets[0].footprint == target.footprint


# From docs/performance.md: int4 in groups of 32, context 8192.
@pytest.mark.parametrize(
    ("model", "data", "bundle", "resident", "memory", "seconds"),
    [
        ("3.2-1B", 814.4e6, 822.8e6, 1199e6, 2.68e9, (54.0, 56.4)),
        ("3.2-3B", 1987.4e6, 2.00e9, 2959e6, 4.90e9, (145, 149)),
    ],
)
def test_estimates_agree_with_what_was_measured(
    no_network, model, data, bundle, resident, memory, seconds
):
    found = estimated(model)
    (target,) = found.targets
    file_bytes = (
        target.footprint.size_bytes
        - {part.kind: part.size_bytes for part in target.footprint.parts}["graph"]
    )
    assert file_bytes == pytest.approx(data, rel=1e-4)
    assert target.bundle_bytes == pytest.approx(bundle, rel=0.005)
    assert target.footprint.resident_bytes == pytest.approx(resident, rel=0.01)
    assert found.memory_bytes == pytest.approx(memory, rel=0.01)
    assert seconds[0] <= found.elapsed_s <= seconds[1]
    assert found.download_bytes == 2 * found.num_parameters


def test_what_changes_an_estimate(no_network):
    whole = estimated("3.2-1B")
    coarse = estimated("3.2-1B", group_size=128)
    assert coarse.targets[0].bundle_bytes < whole.targets[0].bundle_bytes
    assert coarse.targets[0].footprint.resident_bytes < whole.targets[0].footprint.resident_bytes
    assert estimated("3.2-1B", "bf16").targets[0].bundle_bytes > 2 * whole.num_parameters
    assert estimated("3.2-1B", cores=4).elapsed_s < whole.elapsed_s
    unchecked = estimated("3.2-1B", verify=False)
    assert unchecked.memory_bytes < 0.5e9 < whole.memory_bytes
    assert unchecked.elapsed_s < whole.elapsed_s
    short = estimated("3.2-1B", max_context=1024).targets[0]
    assert whole.targets[0].footprint.size_bytes - short.footprint.size_bytes == 2 * 7168 * 32 * 4
    assert short.run_bytes(1000) - short.run_bytes(0) == 1000 * 65536


def test_what_cannot_run_here_costs_no_check(no_network):
    pytest.importorskip("executorch", reason="needs the executorch extra")

    def cost(delegate: str, *, verify: bool) -> tuple[float, int]:
        options = {"executorch": registry.get("executorch").Options(delegate=delegate)}
        shape, chosen = shape_of("3.2-1B"), recipe("int4")
        found = estimate(
            shape, ["executorch"], chosen, None, options, verify=verify, cores=2
        ).targets[0]
        return found.elapsed_s, found.memory_bytes

    assert cost("vulkan", verify=True) == cost("vulkan", verify=False)
    assert cost("vulkan", verify=True) == cost("xnnpack", verify=False)
    assert cost("xnnpack", verify=True) > cost("xnnpack", verify=False)


def test_targets_are_made_one_after_the_other(no_network):
    """Each has costs of its own: their times add up, and the largest memory is what is needed."""
    options = {name: registry.get(name).Options() for name in TARGETS}
    shape, chosen = shape_of("3.2-1B"), recipe("int4")
    whole = estimate(shape, TARGETS, chosen, None, options, verify=False, cores=2)
    each = whole.targets
    assert [round(target.elapsed_s) for target in each] == [36, 76, 51]
    assert [round(target.memory_bytes / 1e7) for target in each] == [42, 167, 82]
    assert whole.elapsed_s == sum(target.elapsed_s for target in each)
    assert whole.memory_bytes == 1_670_000_000
    document = whole.to_json()
    assert document["memory_bytes"] == 1_670_000_000
    assert [target["elapsed_s"] for target in document["targets"]] == [36.2, 76.0, 51.0]


def test_memory_grows_with_the_model():
    sizes = [
        memory_bytes(["onnx"], count, verify=True)
        for count in (1_000, 5_773_056, 10**8, 10**9, 10**10)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] == sizes[1] == 350_000_000
    assert memory_bytes(["onnx"], 10**11, verify=False) < 10**9


def test_every_alias_has_a_shape(no_network):
    models = known_models()
    assert [model.name for model in models] == ["demo", *ALIASES]
    for model in models:
        shape = shape_of(model.name)
        assert shape.config == model.config
        assert shape.download_bytes == (model.checkpoint_bytes if model.hub_id else 0)
        assert model.gated is (model.hub_id is not None)


def test_another_repository_gives_its_config_alone(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "theirs")
    asked = []

    def fetch(hub_id, **options):
        asked.append((hub_id, options))
        return tmp_path / "theirs", "0" * 40

    monkeypatch.setattr("llama_export.sources.catalogue.fetch", fetch)
    shape = shape_of("someone/Else", revision="v2", token="secret")
    assert asked == [("someone/Else", {"revision": "v2", "token": "secret", "weights": False})]
    assert (shape.name, shape.config) == ("Else", TINY)
    assert shape.download_bytes == 2 * TINY.num_parameters


def test_the_config_of_a_repository_is_fetched_without_its_weights(tmp_path, monkeypatch):
    from llama_export.sources.repository import fetch

    files = {"config.json": b'{"a": 1}', "model.safetensors": bytes(5_000)}
    refs = tmp_path / "alone"
    with nothing_of_this_machine(monkeypatch, tmp_path), serve(Hub(files)) as hub:
        place = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
        folder, commit = fetch(REPOSITORY, weights=False, **place)
        assert (commit, [path.name for path in folder.iterdir()]) == (COMMIT, ["config.json"])
        assert hub.sent("GET", "model.safetensors") == []
        # What was fetched for an estimate must not look like a copy of the model.
        whole, _ = fetch(REPOSITORY, **place)
        assert sorted(path.name for path in whole.iterdir()) == ["config.json", "model.safetensors"]
        fetch(REPOSITORY, weights=False, endpoint=hub.endpoint, cache_dir=refs)
        assert not list(refs.rglob("refs/*"))
        with pytest.raises(HubError, match="no complete copy"):
            fetch(REPOSITORY, weights=False, endpoint="http://127.0.0.1:9", cache_dir=refs)


def test_what_cannot_be_estimated(tmp_path):
    with pytest.raises(HubError, match="no model called"):
        shape_of("3.2-2B-nonsense")
    with pytest.raises(CheckpointError, match="does not exist"):
        shape_of("./nowhere")
    with pytest.raises(ConfigError, match="does not exist"):
        shape_of(str(tmp_path))
    with pytest.raises(HubError, match="revision"):
        shape_of("demo", revision="main")
    narrow = write_checkpoint(tmp_path / "narrow", replace(TINY, hidden_size=96))
    with pytest.raises(QuantizationError, match="do not divide"):
        estimated(str(narrow), group_size=64)
    for context in (0, -1, 8193):
        with pytest.raises(UsageError, match="--max-context"):
            choose_context("onnx", 8192, context)


def test_room_is_refused_for_the_disk_and_said_for_the_memory(tmp_path, caplog, monkeypatch):
    # The command line, if it ran before, took the notices for itself.
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    found = estimated("3.2-1B")
    look_for_resources(found, tmp_path, FakeMachine()).require()
    assert caplog.records == []
    full = look_for_resources(found, tmp_path, FakeMachine(free_disk=found.disk_bytes - 1))
    with pytest.raises(
        OutputError, match=r"needs 1\.64 GB at .*, and 1\.64 GB are free"
    ) as refused:
        full.require()
    assert "--output" in refused.value.hint
    look_for_resources(found, tmp_path, FakeMachine(free_disk=found.disk_bytes)).require()
    tight = look_for_resources(found, tmp_path, FakeMachine(memory=4 * 10**9, available=10**9))
    tight.require()
    assert not tight.memory_is_hopeless
    assert tight.to_json()["fits"] is True
    assert "--no-verify" in caplog.text
    assert "about 2.68 GB of memory" in caplog.text
    hopeless = look_for_resources(found, tmp_path, FakeMachine(memory=2 * 10**9, available=10**9))
    assert hopeless.memory_is_hopeless
    assert hopeless.to_json()["fits"] is False


def test_a_full_disk_ends_an_export_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_export.system.machine.Machine.free_disk_bytes", lambda *_: 1_000_000)

    def open_source(_model):
        pytest.fail("nothing may be opened, let alone downloaded")

    monkeypatch.setattr("llama_export.exporting.pipeline.open_source", open_source)
    with pytest.raises(OutputError, match="are free"):
        export_small(tmp_path)
    assert not (tmp_path / "out").exists()


def test_phones_are_sourced_and_their_arithmetic_holds():
    assert len({phone.name for phone in PHONES}) == len(PHONES)
    for phone in PHONES:
        assert phone.sources
        assert all(re.match(r"https://[\w.]+/", source) for source in phone.sources)
        assert phone.bandwidth is None or 10e9 < phone.bandwidth < 100e9
        assert 4 * 2**30 <= phone.memory_bytes <= 16 * 2**30
    assert derived_bandwidth(6400) == 51.2e9
    phone = Phone("test", 8 * 10**9, None, 50e9, False, ("https://a.b/",))
    assert [phone.verdict(size) for size in (3 * 10**9, 3_000_000_001, 6 * 10**9, 7 * 10**9)] == [
        "yes",
        "perhaps",
        "perhaps",
        "no",
    ]
    assert phone.tokens_per_s(10**9) == 50
    assert replace(phone, memory_bytes=12 * 10**9).verdict(3_300_000_001) == "perhaps"
    assert replace(phone, memory_bytes=16 * 10**9).verdict(8_000_000_001) == "no"
    assert replace(phone, bandwidth=None).tokens_per_s(10**9) is None


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    """Return a hub cache that holds nothing, on the disk of the outputs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def plenty(monkeypatch):
    machine = FakeMachine()
    monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda: machine)
    return machine


def test_the_list_is_a_table_and_json(command, no_network):
    code, out, _ = command("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert all(name in out for name in ("demo", *ALIASES))
    code, out, _ = command("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["3.2-1B"]["hub_id"] == ALIASES["3.2-1B"]
    assert rows["3.2-1B"]["targets"][0]["bundle_bytes"] == pytest.approx(822.8e6, rel=0.005)
    assert rows["demo"]["gated"] is False
    assert [target["target"] for target in rows["demo"]["targets"]] == list(TARGETS)


DRY_RUN = ("--target", "onnx", "--model", "3.2-3B", "--dry-run")


def test_a_dry_run_writes_nothing(command, no_network, plenty, tmp_path):
    code, out, _ = command(*DRY_RUN, "--output", tmp_path / "out")
    assert code == 0
    assert not (tmp_path / "out").exists()
    assert "2.00 GB" in out
    assert "iPhone 15 Pro" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = command(*DRY_RUN, "--output", tmp_path / "out", "--json")
    plan = json.loads(out)
    assert (code, plan["resources"]["fits"], plan["resources"]["problems"]) == (0, True, [])
    assert plan["estimate"]["disk_bytes"] == pytest.approx(2 * 1.99e9, rel=0.01)
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


def test_the_cache_on_another_disk_is_looked_at_alone(tmp_path, monkeypatch):
    found = estimated("3.2-1B")
    download = Download(found.download_bytes, tmp_path / "hub")
    free = {tmp_path / "out": found.disk_bytes, download.folder: found.download_bytes}

    class TwoDisks(FakeMachine):
        def free_disk_bytes(self, place):
            return free[place]

    def look():
        return look_for_resources(found, tmp_path / "out", TwoDisks(), download=download)

    with pytest.raises(OutputError, match="on the same disk"):
        look().require()
    monkeypatch.setattr("llama_export.exporting.resources._disk_of", lambda place: place.name)
    look().require()
    free[download.folder] -= 1
    with pytest.raises(OutputError, match=r"download of 3\.2-1B needs 2\.47 GB") as refused:
        look().require()
    assert "HF_HOME" in refused.value.hint


def test_a_full_cache_disk_ends_an_export_before_its_download(no_network, monkeypatch, tmp_path):
    from artifacts.small_bundle import Silent

    from llama_export.exporting.pipeline import ExportRequest, export_bundle

    pytest.importorskip("onnx", reason="needs the onnx extra")
    machine = FakeMachine(free_disk=estimated("3.2-3B").disk_bytes)
    monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda: machine)
    monkeypatch.setattr(
        "llama_export.exporting.pipeline.fetch_named",
        lambda *_, **__: pytest.fail("nothing is fetched"),
    )
    with pytest.raises(OutputError, match="its download"):
        export_bundle(ExportRequest("3.2-3B", ("onnx",), tmp_path / "out"), Silent())


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


def test_a_plan_is_resolved_once_and_executed(monkeypatch, tmp_path):
    """Neither the command nor the pipeline asks again for what the plan holds."""
    from artifacts.small_bundle import Silent

    from llama_export.exporting import pipeline, plan
    from llama_export.exporting.request import ExportRequest
    from llama_export.llama.config import LlamaConfig

    pytest.importorskip("onnx", reason="needs the onnx extra")
    asked = []

    def counted(place, name):
        real = getattr(place, name)

        def call(*arguments, **options):
            asked.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, call)

    counted(plan, "name_model")
    counted(plan, "estimate")
    counted(plan, "first_refusal")
    counted(LlamaConfig, "read")
    checkpoint = write_checkpoint(tmp_path / "tiny")
    request = ExportRequest(str(checkpoint), ("onnx",), tmp_path / "out", verify=False)
    made = plan.plan_export(request)
    again = list(asked)
    assert sorted(again) == ["estimate", "first_refusal", "first_refusal", "name_model", "read"]
    result = pipeline.run_export(made, Silent())
    assert asked == again
    assert result.bundles[0].bundle.folder == made.targets[0].folder


def test_an_aliass_small_files_are_judged_when_the_plan_is_to_be_executed(
    no_network, plenty, monkeypatch, tmp_path
):
    from llama_export.exporting import plan
    from llama_export.exporting.request import ExportRequest
    from llama_export.sources.source import describe

    pytest.importorskip("onnx", reason="needs the onnx extra")
    there = describe(write_checkpoint(tmp_path / "tiny"), with_weights=False)
    monkeypatch.setattr(plan, "describe_remote", lambda named, **_: there)
    request = ExportRequest("3.2-1B", ("onnx",), tmp_path / "out")
    assert plan.plan_export(request, to_show=True).model.description is None
    assert plan.plan_export(request).model.description is there


def test_a_second_recipe_is_refused_by_the_plan(command, plenty, tmp_path):
    output = export_small(tmp_path)
    options = ("--target", "onnx", "--model", output / "weights", "-o", tmp_path / "again")
    for more in (("--quantize", "int8"), ("--group-size", "64")):
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
