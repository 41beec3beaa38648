"""Estimates against real bundles and what was measured, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.estimates import estimated
from artifacts.opened import footprint_of
from artifacts.small_bundle import export_small
from artifacts.tiny import TINY, UNTIED, write_checkpoint
from fakes.hub import COMMIT, REPOSITORY, Hub, nothing_of_this_machine, serve

from llama_export.bundle.bundle import Bundle
from llama_export.errors import CheckpointError, ConfigError, HubError, UsageError
from llama_export.exporting.estimate import choose_context, estimate, memory_bytes
from llama_export.sources.catalogue import known_models, shape_of
from llama_export.sources.resolve import ALIASES
from llama_export.targets import registry
from llama_export.targets.registry import TARGETS
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe

pytestmark = pytest.mark.usefixtures("empty_cache")


# What a check records besides: 64 answers with 32 tokens each.
GOLDEN_BYTES = 36_500


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("config", "name", "choices"),
    [
        (TINY, "int4", {}),
        (UNTIED, "bf16", {"max_context": 300}),
        (UNTIED, "int8", {"max_context": 300, "group_size": 64}),
        (TINY, "int4", {"table": "int4"}),
        (UNTIED, "int8", {"table": "int4", "group_size": 64}),
    ],
    ids=["int4", "bf16 untied", "int8 g64 untied", "int4 table", "int4 tables"],
)
def test_an_estimate_is_what_an_export_writes(tmp_path, config, name, choices):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    output = export_small(tmp_path, config, recipe=name, **choices)
    found = estimated(str(tmp_path / "tiny"), name, verify=False, **choices)
    (target,) = found.targets
    (checked,) = estimated(str(tmp_path / "tiny"), name, **choices).targets
    assert checked.bundle_bytes == target.bundle_bytes + GOLDEN_BYTES
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
    again = estimated(str(output / "weights"), "int4", max_context=choices.get("max_context"))
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
        assert model.gated is (model.hub_id or "").startswith("meta-llama/")


def test_another_repository_gives_its_config_alone(tmp_path, monkeypatch):
    from llama_export.sources.repository import Fetched

    write_checkpoint(tmp_path / "theirs")
    asked = []

    def fetch(hub_id, **options):
        asked.append((hub_id, options))
        return Fetched(tmp_path / "theirs", "0" * 40)

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
        found = fetch(REPOSITORY, weights=False, **place)
        assert found.commit == COMMIT
        assert [path.name for path in found.path.iterdir()] == ["config.json"]
        assert hub.sent("GET", "model.safetensors") == []
        # What was fetched for an estimate must not look like a copy of the model.
        whole = fetch(REPOSITORY, **place).path
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
    with pytest.raises(CheckpointError, match="is empty"):
        shape_of(str(tmp_path))
    (tmp_path / "notes.txt").touch()
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
