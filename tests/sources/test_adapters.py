"""An adapter is found with its base, exported, recorded, and opened again for a verification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from artifacts.adapters import PREFIX, low_rank, modules_of, write_adapter
from artifacts.sample_bundle import DRAFT
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint
from fakes.hub import COMMIT

from llama_export import HubModel, export, verify
from llama_export.bundle.json_object import JsonObject
from llama_export.bundle.model_info import AdapterInfo, ModelInfo, parse_model
from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import CheckpointError, ConfigError, LlamaExportError, UsageError
from llama_export.exporting.pipeline import run_export
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.sources import adapters as adapters_module
from llama_export.sources.adapters import name_with_adapters
from llama_export.sources.reading import READING, read_again, recorded
from llama_export.sources.references import reference_for
from llama_export.sources.repository import Fetched
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import open_source
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.lazy import LazyTensor
from llama_quantize.recipe import recipe

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path, base) -> Path:
    return write_adapter(tmp_path / "tuned", low_rank(TINY, modules_of(TINY)), base=base)


def planned(model: object, reading: ReadOptions | None = None, folder: str = "out"):
    request = ExportRequest(str(model), ("onnx",), Path(str(model)).parent / folder, verify=False)
    return plan_export(replace(request, reading=reading or ReadOptions()))


def refusal(model: object, **reading: object) -> LlamaExportError:
    with pytest.raises(LlamaExportError) as caught:
        name_with_adapters(str(model), ReadOptions(**reading))
    assert caught.value.hint
    return caught.value


# Names.


def test_an_adapter_named_as_the_model_finds_its_base(base, adapter):
    named = name_with_adapters(str(adapter))
    assert (named.name, named.path) == ("tuned", base)
    assert named.adapters == (AdapterInfo("tuned"),)
    assert named.reading.adapters == (str(adapter),)
    other = name_with_adapters(str(adapter), ReadOptions(base="demo", adapters=(str(adapter),)))
    assert other.name == "tuned+tuned"
    assert other.path is not None
    assert other.path.name == "demo"
    assert len(other.adapters) == 2


def test_adapters_over_a_model_and_their_order(base, adapter, tmp_path):
    second = write_adapter(tmp_path / "second", low_rank(TINY, [QUERY]))
    named = name_with_adapters(str(base), ReadOptions(adapters=(str(adapter), str(second))))
    assert named.name == "base+tuned+second"
    assert named.reading.adapters == (str(adapter), str(second))
    plain = name_with_adapters(str(base))
    assert (plain.path, plain.adapters, plain.reading) == (base, (), ReadOptions())


def test_an_alias_is_not_fetched_for_being_an_adapter(monkeypatch):
    monkeypatch.setattr(adapters_module, "fetch", lambda *_, **__: pytest.fail("fetched"))
    assert name_with_adapters("3.2-1B", revision="v1").revision == "v1"


@pytest.mark.parametrize(
    ("named", "match", "hint"),
    [
        (None, "does not say which model it was trained on", "--base"),
        ("/workspace/models/llama", "which is not here", "--base"),
        ("no-such-thing", "which is not here", "--base"),
        (
            "unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit",
            "a copy in 4 bits",
            "--base unsloth/Llama-3.2-1B-Instruct",
        ),
        ("unsloth/llama-3-8b-bnb-4bit", "a copy in 4 bits", "--base unsloth/llama-3-8b"),
    ],
)
def test_a_base_that_is_not_at_hand(adapter, named, match, hint):
    raw = json.loads((adapter / "adapter_config.json").read_text())
    raw["base_model_name_or_path"] = named
    (adapter / "adapter_config.json").write_text(json.dumps(raw))
    error = refusal(adapter)
    assert match in error.message
    assert error.hint.endswith(hint)


def test_what_is_no_adapter_is_refused_by_name(base, adapter, tmp_path):
    assert "is no adapter" in refusal(base, adapters=(str(base),)).message
    error = refusal(base, adapters=("misspelt",))
    assert error.message == "--adapter: there is no adapter called 'misspelt'"
    assert "peft" in error.hint
    (tmp_path / "outputs/checkpoint-7").mkdir(parents=True)
    (tmp_path / "outputs/checkpoint-7/adapter_config.json").write_text("{}")
    error = refusal(base, adapters=(str(tmp_path / "outputs"),))
    assert "trainer's output" in error.message
    assert "checkpoint-7" in error.hint
    error = refusal(base, base=str(base))
    assert isinstance(error, UsageError)
    assert "--base is for an adapter" in error.message
    assert "an adapter itself" in refusal(adapter, base=str(adapter)).message


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (ReadOptions(rope_factor=8.0), "--rope-factor is for Meta's layout"),
        (ReadOptions(merge_adaptors=True), "--merge-adaptors is for side branches in Meta's"),
        (ReadOptions(accept_loss=True), "--accept-loss is for GGUF"),
    ],
)
def test_what_a_format_has_no_use_for_is_refused(base, adapter, reading, message):
    for model in (base, adapter):
        with pytest.raises(UsageError, match=message):
            planned(model, reading)


# From the hub.


class Repositories:
    """Adapters and models on the hub, as `fetch` brings them."""

    def __init__(self, **folders: Path) -> None:
        self.folders, self.calls = folders, []

    def fetch(self, hub_id, *, revision=None, token=None, weights=True, progress=None):
        self.calls.append((hub_id, revision, weights))
        name = hub_id.partition("/")[2].partition(":")[0]
        return Fetched(self.folders[name], COMMIT)


@pytest.fixture
def hub(monkeypatch, base, adapter):
    repositories = Repositories(base=base, tuned=adapter)
    for name in ("adapters", "catalogue", "resolve"):
        monkeypatch.setattr(f"llama_export.sources.{name}.fetch", repositories.fetch)
    return repositories


def test_an_adapter_on_the_hub_is_found_with_its_base(hub, adapter):
    raw = json.loads((adapter / "adapter_config.json").read_text())
    raw |= {"base_model_name_or_path": "org/base", "revision": "abc"}
    (adapter / "adapter_config.json").write_text(json.dumps(raw))
    named = name_with_adapters("me/tuned", revision="v2")
    assert (named.hub_id, named.revision, named.name) == ("org/base", "abc", "tuned")
    assert named.adapters == (AdapterInfo("tuned", "me/tuned", COMMIT),)
    assert hub.calls == [("me/tuned", "v2", False), ("me/tuned", "v2", True)]
    pinned = name_with_adapters("org/base", ReadOptions(adapters=(f"me/tuned@{COMMIT}",)))
    assert pinned.adapters == named.adapters
    assert hub.calls[-1] == ("me/tuned", COMMIT, True)
    assert not any(each[0] == "org/base" and each[2] for each in hub.calls), "no weights yet"


def test_an_adapter_on_the_hub_does_not_choose_a_folder_of_this_machine(hub):
    error = refusal("me/tuned")
    assert isinstance(error, CheckpointError)
    assert "a place on its maker's machine" in error.message


def test_the_tokens_of_a_pruned_head_are_counted_of_an_alias_too(hub, base, tmp_path):
    hub.folders["Llama-3.2-1B"] = base
    reading = ReadOptions(head_tokens=("ab",))
    request = ExportRequest("3.2-1B", ("onnx",), tmp_path / "out", reading=reading)
    plan = plan_export(request, to_show=True)
    assert 2 < len(plan.model.config.head_tokens) < 10
    assert hub.calls == [("meta-llama/Llama-3.2-1B", None, False)], "no weights"


def test_an_adapter_of_another_model_is_refused_before_the_weights_are_fetched(hub, tmp_path):
    wide = replace(TINY, hidden_size=256)
    hub.folders["tuned"] = write_adapter(tmp_path / "wide", low_rank(wide, [QUERY]))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        planned("org/base", ReadOptions(adapters=("me/tuned",)))
    assert not any(each[0] == "org/base" and each[2] for each in hub.calls)


# The whole way.


def signal_to_noise(report) -> float:
    """Return that of the logits, quantised against the checkpoint's."""
    return next(row.value for row in report.rows if row.key == "sqnr_quantisation")


@pytest.mark.onnx
def test_an_adapter_is_exported_recorded_and_verified(base, adapter, tmp_path):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    result = export(str(adapter), "onnx", tmp_path / "out", max_context=128)
    bundle = result.bundles[0].bundle
    model = bundle.manifest.model
    assert model.name == "tuned"
    assert model.adapters == (AdapterInfo("tuned"),)
    raw = json.loads((bundle.folder / "manifest.json").read_text())["model"]
    assert raw["adapters"] == [{"name": "tuned", "hub_id": None, "revision": None}]
    assert not {"reading", "notes"} & set(raw), "only what there is to say"
    right = verify(bundle.folder, checkpoint=str(adapter), quick=True)
    assert right.verdict == "passed"
    over = HubModel(str(base), reading=ReadOptions(adapters=(str(adapter),)))
    assert verify(bundle.folder, checkpoint=over, quick=True).verdict == "passed"
    with pytest.raises(CheckpointError, match=r"made with adapters that .* lacks: tuned"):
        verify(bundle.folder, checkpoint=str(base), quick=True)
    # Another adapter is another model.
    other = write_adapter(tmp_path / "tuned2", low_rank(TINY, modules_of(TINY), seed=9), base=base)
    wrong = verify(bundle.folder, checkpoint=str(other), quick=True)
    assert signal_to_noise(right) > 5 > 2 > signal_to_noise(wrong)
    # What was kept says it too.
    again = planned(tmp_path / "out/weights", folder="again")
    kept = run_export(again, Silent()).bundles[0].bundle.manifest.model
    assert (kept.name, kept.adapters) == ("tuned", model.adapters)


@pytest.mark.onnx
def test_notes_are_shown_by_the_plan_and_kept_in_the_manifest(base, tmp_path):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    table = torch.randn(TINY.vocab_size, 128)
    saved = {f"{PREFIX}model.embed_tokens.weight": table}
    tuned = write_adapter(tmp_path / "tuned", saved, base=base)
    plan = planned(tuned)
    assert len(plan.notes) == 1
    assert "two tensors" in plan.notes[0]
    assert not plan.model.config.tie_word_embeddings
    result = run_export(plan, Silent())
    assert result.notes == plan.notes == result.bundles[0].bundle.manifest.model.notes
    assert result.to_json()["notes"] == list(plan.notes)


def test_a_checkpoint_is_opened_again_as_it_was_for_the_bundle(hub, base, adapter, tmp_path):
    model = {
        "name": "tuned",
        "hub_id": "org/base",
        "revision": COMMIT,
        "adapters": (AdapterInfo("tuned", "me/tuned", COMMIT),),
    }
    bundle = Stub(tmp_path, **model)
    hub.calls.clear()
    found = reference_for(bundle, "org/base", None).checkpoint
    assert found is not None
    assert isinstance(found.tensor(f"{QUERY}.weight"), LazyTensor)
    assert hub.calls == [
        ("org/base", COMMIT, False),
        ("org/base", COMMIT, False),
        ("me/tuned", COMMIT, False),
        ("me/tuned", COMMIT, True),
        ("org/base", COMMIT, True),
    ]


@pytest.mark.parametrize("checkpoint", ["me/tuned", "org/base", "org/base:Q8_0"])
def test_the_base_is_the_model_in_gguf_that_the_bundle_names(hub, adapter, tmp_path, checkpoint):
    raw = json.loads((adapter / "adapter_config.json").read_text())
    raw |= {"base_model_name_or_path": "org/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(raw))
    model = {
        "name": "tuned",
        "hub_id": "org/base",
        "revision": COMMIT,
        "adapters": (AdapterInfo("tuned", "me/tuned", COMMIT),),
        "file": "base-Q8_0.gguf",
    }
    reference_for(Stub(tmp_path, **model), checkpoint, None)
    picked = "Q8_0" if checkpoint.endswith("Q8_0") else model["file"]
    assert hub.calls[-1] == (f"org/base:{picked}", COMMIT, True)


def test_options_are_those_of_the_bundle_unless_others_are_given(tmp_path):
    info = ModelInfo("x", None, None, {}, reading={"rope_factor": 8.0, "accept_loss": True})
    again = read_again(ReadOptions(adapters=("x",)), info)
    assert again == ReadOptions(rope_factor=8.0, adapters=("x",), accept_loss=True)
    assert read_again(ReadOptions(rope_factor=32.0), info).rope_factor == 32.0
    assert recorded(again) == info.reading
    pruned = replace(info, reading={"head_tokens": ["safe", "unsafe"]})
    assert read_again(ReadOptions(), pruned).head_tokens == ("safe", "unsafe")
    assert recorded(read_again(ReadOptions(), pruned)) == pruned.reading
    assert read_again(ReadOptions(head_tokens=("x",)), pruned).head_tokens == ("x",)
    assert recorded(ReadOptions(base="x", adapters=("y",))) == {}


class Stub:
    """A bundle of which only the model is read."""

    def __init__(self, folder: Path, **model: object) -> None:
        self.folder = folder / "bundle"
        self.manifest = SimpleNamespace(model=ModelInfo(config={}, **model))


WRONG_HEADS = [{"head_tokens": each} for each in ([], "a", [""], [3], ["x" * 1001], ["x"] * 257)]
WRONG = {
    "adapters": [[], [{"name": "/x", "hub_id": None, "revision": None}], [{}], "x", {}],
    "reading": [
        {},
        {"rope_factor": "8"},
        {"rope_factor": 0.5},
        {"accept_loss": 1},
        {"x": 1},
        *WRONG_HEADS,
    ],
    "notes": [[], [""], ["a\nb"], [3], "x", ["x"] * 65],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_manifest_holds_how_a_model_was_read_strictly(key):
    info = replace(
        DRAFT.model,
        adapters=(AdapterInfo("a"), AdapterInfo("b", "me/b", COMMIT)),
        reading={"rope_factor": 32.0, "merge_adaptors": True},
        notes=("Q4_K is dequantised and quantised again",),
    )
    raw = json.loads(replace(DRAFT, model=info).to_text())["model"]
    faults: list[str] = []
    assert parse_model(JsonObject(raw, "model.", faults)) == info
    assert faults == []
    plain = json.loads(DRAFT.to_text())["model"]
    assert set(plain) == {"name", "hub_id", "revision", "config"}, "bytes of today's bundles"
    for value in WRONG[key]:
        parse_model(JsonObject({**plain, key: value}, "model.", faults))
        assert faults, value
        assert key in faults.pop()
        faults.clear()


def test_a_damaged_record_beside_weights_is_refused(base, tmp_path):
    for number, text in enumerate(("[", "[]", '{"adapters": 3}', '{"x": 1}', '{"notes": []}')):
        kept = tmp_path / f"weights{number}"
        quantize_to(kept, open_checkpoint(base), recipe("int4"), metadata={READING: text})
        for name in ("config.json", "tokenizer.model"):
            (kept / name).write_bytes((base / name).read_bytes())
        with pytest.raises(CheckpointError, match=r"metadata\.reading is damaged"):
            open_source(resolve_model(str(kept)))


def test_an_adapter_without_its_base_config_is_an_error_about_the_base(base, adapter):
    (base / "config.json").unlink()
    with pytest.raises((ConfigError, CheckpointError), match="base"):
        planned(adapter)
