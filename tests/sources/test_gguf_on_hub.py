"""Models in GGUF on the hub: one of several is picked, and judged by the head of its file alone."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from artifacts.gguf_files import CONTROLS, SMALL, key_value, raw_gguf, split_gguf, write_gguf
from fakes.hub import COMMIT, Hub, serve

from llama_export.checkpoints.checkpoint import AS_IT_IS
from llama_export.checkpoints.formats import head_place, open_checkpoint
from llama_export.checkpoints.gguf import head as head_module
from llama_export.checkpoints.lora_config import is_adapter
from llama_export.errors import CheckpointError, GatedModelError, HubError, UnsupportedModelError
from llama_export.sources.adapters import name_with_adapters
from llama_export.sources.catalogue import describe_remote, download_of, shape_of
from llama_export.sources.licence import licence_folder
from llama_export.sources.repository import fetch
from llama_export.sources.resolve import NamedModel, name_model, resolve_model

pytestmark = pytest.mark.usefixtures("alone")

ID = "org/M-1B-GGUF"
Q8, Q4, DEEP = "M-1B-Q8_0.gguf", "M-1B-Q4_0.gguf", "F32/M-1B-F32.gguf"
PLAIN = replace(SMALL, rope_scaling=None)
# The template ends a turn with a token of its own.
CONFIG = replace(PLAIN, eos_token_id=(257, 259))
# What a file has after its tensors is not read: a stand-in for gigabytes.
BEHIND = 24 * 2**20


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    paths = {
        Q8: write_gguf(folder / Q8, PLAIN, "Q8_0"),
        Q4: write_gguf(folder / Q4, PLAIN, "Q4_0"),
        DEEP: write_gguf(folder / DEEP, SMALL, "F32"),
    }
    return {name: path.read_bytes() + bytes(BEHIND) for name, path in paths.items()}


@pytest.fixture
def hub(models, monkeypatch):
    files = {**models, "LICENSE": b"MIT", "README.md": b"x"}
    with serve(Hub(files, large=frozenset(models))) as running:
        for name in ("adapters", "catalogue", "resolve"):
            there = partial(fetch, endpoint=running.endpoint)
            monkeypatch.setattr(f"llama_export.sources.{name}.fetch", there)
        yield running


@pytest.fixture
def offline(monkeypatch):
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def got(hub, name):
    return [r.range for r in hub.sent("GET", name)]


# Names.


@pytest.mark.parametrize(
    ("model", "hub_id", "picked", "name"),
    [
        ("org/M-GGUF:Q8_0", "org/M-GGUF", "Q8_0", "M-GGUF"),
        ("org/M-GGUF:q4_k_m", "org/M-GGUF", "q4_k_m", "M-GGUF"),
        ("hf.co/org/M-GGUF:Q8_0", "org/M-GGUF", "Q8_0", "M-GGUF"),
        ("huggingface.co/org/M", "org/M", "", "M"),
        ("org/M-GGUF/M-Q8_0.gguf", "org/M-GGUF", "M-Q8_0.gguf", "M-GGUF"),
        ("org/M/F 16/M 1.gguf", "org/M", "F 16/M 1.gguf", "M"),
        ("org/M.gguf", "org/M.gguf", "", "M.gguf"),
        ("hf.co/M", "hf.co/M", "", "M"),
    ],
)
def test_a_name_says_which_model_of_a_repository_is_meant(model, hub_id, picked, name):
    assert name_model(model) == NamedModel(name, None, hub_id, picked=picked)


@pytest.mark.parametrize(
    "model",
    [
        "org/M:", "org/M:Q8_0:x", "org/M:../x", "org/M:a b", "C:/models/m", "C:\\models\\m",
        "C:/models/m.gguf", "org:Q8_0", "a/b/c", "org/M/x.bin", "org/M\\x.gguf", "o/M:Q8_0/x.gguf",
    ],
)  # fmt: skip
def test_what_is_no_such_name_is_refused_without_a_request(hub, model):
    with pytest.raises(HubError, match="there is no model called"):
        name_model(model)
    assert hub.requests == []


@pytest.mark.parametrize(
    "model", ["m.gguf", "Model.GGUF", "model.safetensors", "pytorch_model.bin"]
)
def test_a_file_that_is_not_here_is_no_model_of_the_hub(hub, model):
    with pytest.raises(CheckpointError, match=f"{model} does not exist") as caught:
        name_model(model)
    assert "a file in GGUF" in (caught.value.hint or "")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ("", ""), ("/", ""), ("/tree/main", ""), ("?library=transformers", ""),
        ("/blob/main/x/m-Q8_0.gguf", "/x/m-Q8_0.gguf"),
        ("/resolve/main/m.gguf?download=true", "/m.gguf"),
    ],
)  # fmt: skip
def test_the_page_of_a_repository_is_told_its_id(hub, rest, named):
    with pytest.raises(HubError, match="there is no model called") as caught:
        name_model(f"https://huggingface.co/org/M{rest}")
    assert caught.value.hint == f"name the repository by its id: --model org/M{named}"
    assert hub.requests == []


def test_what_is_there_wins_over_the_hub(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "org" / "M:Q8_0"
    place.mkdir(parents=True)
    assert name_model("org/M:Q8_0").path == Path("org/M:Q8_0")
    (place / "m.gguf").write_bytes(models[Q8])
    assert name_model("org/M:Q8_0/m.gguf").path == Path("org/M:Q8_0/m.gguf")
    for model in ("./org/M:Q4_0", "org/M:Q8_0/", str(tmp_path / "a:b")):
        (tmp_path / "a:c").mkdir(exist_ok=True)
        if model.endswith("/"):
            assert name_model(model).path is not None
        else:
            with pytest.raises(CheckpointError, match="does not exist"):
                name_model(model)
    (tmp_path / "models/llama").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="does not exist"):
        name_model("models/llama/misspelt.gguf")


# What is fetched.


@pytest.mark.parametrize("picked", [":Q8_0", ":q8_0", f"/{Q8}"])
def test_a_tag_brings_one_file_of_many(hub, picked, tmp_path):
    source = resolve_model(f"{ID}{picked}")
    assert (source.hub_id, source.revision, source.file) == (ID, COMMIT, Q8)
    assert source.path.read_bytes() == hub.files[Q8]
    assert licence_folder(source.path) == source.path.parent
    assert got(hub, Q8)
    assert not got(hub, Q4)
    names = sorted(path.name for path in source.path.parent.iterdir())
    assert names == ["LICENSE", Q8]
    assert open_checkpoint(source.path).config == PLAIN


def test_a_file_in_a_folder_has_the_licence_of_its_repository(hub):
    path = resolve_model(f"{ID}:F32").path
    assert path.parent.name == "F32"
    assert (licence_folder(path) / "LICENSE").read_bytes() == b"MIT"
    assert licence_folder(head_place(path)) == licence_folder(path)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (ID, r"holds 3 models in GGUF, and one is meant: F32, Q4_0, Q8_0"),
        (f"{ID}:Q5_K_M", "has no model in GGUF for Q5_K_M; there are F32, Q4_0, Q8_0"),
        (f"{ID}/none.gguf", r"has no model in GGUF for none\.gguf"),
        (f"{ID}/../x.gguf", "has no model in GGUF for"),
    ],
)
def test_what_picks_no_model_is_refused_before_a_file_is_asked_for(hub, model, match):
    for refused in (resolve_model, shape_of, name_with_adapters):
        if refused is name_with_adapters and model != ID:
            continue  # a picked model is no adapter, and nothing is asked for yet
        with pytest.raises(HubError, match=match) as caught:
            refused(model)
        assert f"name one of them, as in {ID}:F32" in caught.value.hint
    assert not [r for r in hub.requests if "/resolve/" in r.path]


def test_a_tag_of_a_repository_without_gguf_is_refused(hub):
    hub.files = {"config.json": b"{}", "model.safetensors": b"x"}
    with pytest.raises(HubError, match="has no model in GGUF, and Q8_0 picks one"):
        resolve_model(f"{ID}:Q8_0")


# Its head.


def test_a_dry_run_reads_the_header_alone(hub):
    shape = shape_of(f"{ID}:Q8_0")
    assert shape.config == CONFIG
    assert shape.recipe.name == "int8"
    assert "codes of its linear layers are kept" in shape.notes[0]
    assert shape.description.tokenizer.token_name(256) == CONTROLS[0]
    assert shape.description.companions.chat_templates
    assert got(hub, Q8) == [f"bytes=0-{2**20 - 1}"]
    assert hub.written < 2**21
    download = download_of(name_model(f"{ID}:Q8_0"), shape)
    assert download.size_bytes == len(hub.files[Q8])
    assert not list(download.folder.rglob("refs/*")), "it is no copy of the model"


def test_the_head_is_kept_until_the_file_is_there(hub, tmp_path):
    first = shape_of(f"{ID}:Q8_0")
    hub.requests.clear()
    again = shape_of(f"{ID}:Q8_0")
    assert not got(hub, Q8)
    assert again.description.path == first.description.path
    source = resolve_model(f"{ID}:Q8_0")
    assert head_place(source.path) == first.description.path
    hub.requests.clear()
    there = shape_of(f"{ID}:Q8_0")
    assert there.description.path == source.path
    assert there.description.checkpoint.folder == source.path
    assert there.missing_bytes == 0
    assert [r.method for r in hub.requests] == ["GET"], "the list of files"
    # Of the others nothing is there, though the cache is larger than one of them.
    assert shape_of(f"{ID}:Q4_0").missing_bytes == len(hub.files[Q4])


def test_a_damaged_copy_is_not_taken_for_the_file(hub):
    path = resolve_model(f"{ID}:Q8_0").path
    path.resolve().write_bytes(b"x" * 20)
    assert shape_of(f"{ID}:Q8_0").config == CONFIG
    assert not path.is_file()


def test_divisors_that_lie_late_are_fetched_by_themselves(hub, monkeypatch):
    monkeypatch.setattr(head_module, "_FIRST_BYTES", 2**10)
    assert shape_of(f"{ID}:F32").config.rope_scaling == SMALL.rope_scaling
    ranges = got(hub, DEEP)
    assert ranges[0] == "bytes=0-1023"
    assert ranges[1].startswith("bytes=1024-")
    start, _, end = ranges[-1].removeprefix("bytes=").partition("-")
    assert int(start) > 2**17
    assert int(end) - int(start) + 1 == 4 * SMALL.head_dim // 2
    assert hub.written < 2**17


def test_of_a_server_that_ignores_ranges_no_more_is_read_than_the_header(hub, monkeypatch):
    hub.ranges = False
    assert shape_of(f"{ID}:Q8_0").config == CONFIG
    assert hub.written < len(hub.files[Q8]) / 2
    monkeypatch.setattr(head_module, "_FIRST_BYTES", 2**10)
    assert shape_of(f"{ID}:F32").config.rope_scaling == SMALL.rope_scaling


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_that_breaks_off_is_asked_for_again(hub, ranges):
    hub.ranges = ranges
    hub.break_at[Q8] = [1000, 0, 70_000]
    assert shape_of(f"{ID}:Q8_0").config == CONFIG
    assert len(got(hub, Q8)) == 4
    hub.busy = 3
    assert shape_of(f"{ID}:Q4_0").config == CONFIG


def lie_short(hub):
    hub.break_at[Q8] = [100] * 20


def lie_other(hub):
    hub.other_range = 8


def lie_busy(hub):
    hub.busy = 1000


def lie_size(hub):
    hub.forged = {"X-Linked-Size": str(2**40)}
    hub.instead[Q8] = hub.files[Q8][:5000]


@pytest.mark.parametrize(
    ("lie", "match"),
    [
        (lie_short, "could not be read: peer closed connection"),
        (lie_other, "could not be read: the server sent another part"),
        (lie_busy, "could not be read: the server answered 503"),
        (lie_size, "could not be read: the connection closed early"),
    ],
)
def test_a_server_that_does_not_send_the_part_is_given_up(hub, tmp_path, lie, match):
    hub.files.pop("LICENSE")
    lie(hub)
    with pytest.raises(HubError, match=match):
        shape_of(f"{ID}:Q8_0")
    assert len(got(hub, Q8)) <= 10
    assert not list(tmp_path.rglob("*.head"))


COUNT = key_value("tokens", 9, struct.pack("<IQ", 4, 2**28))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"<!doctype html>" + bytes(2**21), r"org.M-1B-GGUF.M-1B-Q8_0\.gguf is no GGUF file"),
        (raw_gguf((COUNT,)) + bytes(2**21), "is truncated: tokens needs"),
        (raw_gguf(counts=(2**40, 2**40)) + bytes(2**21), "the number of tensors is"),
    ],
)
def test_what_is_no_header_is_refused_and_not_kept(hub, tmp_path, content, match):
    hub.instead[Q8] = content
    with pytest.raises(CheckpointError, match=match):
        shape_of(f"{ID}:Q8_0")
    assert not list(tmp_path.rglob("*.head"))
    assert hub.written < 2**22
    hub.instead.clear()
    assert shape_of(f"{ID}:Q8_0").config == CONFIG


def test_a_range_beyond_what_there_is(hub):
    hub.instead[Q8] = b""
    with pytest.raises(HubError, match="answered 416"):
        shape_of(f"{ID}:Q8_0")


def test_another_model_is_refused_before_the_download(hub, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", keys={"general.architecture": "qwen2"})
    hub.files["x-Q8_0.gguf"] = path.read_bytes()
    hub.large |= {"x-Q8_0.gguf"}
    hub.files.pop(Q8)
    with pytest.raises(UnsupportedModelError, match="architecture 'qwen2'"):
        shape_of(f"{ID}:Q8_0")


def test_a_gated_repository_refuses_the_head(hub):
    hub.refuse["/resolve/"] = (401, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(GatedModelError):
        shape_of(f"{ID}:Q8_0")


def test_the_token_stays_behind(hub):
    shape_of(f"{ID}:Q8_0", token="hf_secret")
    assert {r.authorization for r in hub.requests if r.host == "store"} == {None}
    assert {r.authorization for r in hub.requests if r.host == "hub"} == {"Bearer hf_secret"}


def test_split_files_are_judged_by_their_heads_and_fetched_together(hub, tmp_path):
    path = write_gguf(tmp_path / "whole.gguf")
    parts = {f"F32/{part.name}": part.read_bytes() for part in split_gguf(path)}
    hub.files, hub.large = {"LICENSE": b"MIT", **parts}, frozenset(parts)
    shape = shape_of(f"{ID}:F32")
    assert shape.description.checkpoint.shapes == open_checkpoint(path).shapes
    assert shape.missing_bytes == sum(map(len, parts.values()))
    assert all(got(hub, name)[0].startswith("bytes=0-") for name in parts)
    source = resolve_model(f"{ID}/{list(parts)[1]}")
    assert source.file == next(iter(parts))
    assert open_checkpoint(source.path).shapes == open_checkpoint(path).shapes


def test_the_only_model_of_a_repository_needs_no_tag(hub):
    for name in (Q4, DEEP):
        hub.files.pop(name)
    named = name_with_adapters(ID)
    assert (named.hub_id, named.picked) == (ID, "")
    found = describe_remote(named, options=AS_IT_IS)
    assert found.checkpoint is not None
    assert not is_adapter(found.path)
    assert hub.written < 2**22
    assert resolve_model(ID).file == Q8


# Offline.


def test_offline_the_same_file_is_found(hub, offline, caplog):
    path = resolve_model(f"{ID}:Q8_0").path
    shape_of(f"{ID}:Q4_0")
    offline()
    hub.requests.clear()
    for model in (f"{ID}:q8_0", f"{ID}/{Q8}"):
        assert resolve_model(model).path == path
        assert f"the copy of {ID}/{Q8}" in caplog.text
        assert shape_of(model).description.path == path
        caplog.clear()
    with pytest.raises(HubError, match=r"no complete copy.*has no model in GGUF for Q4_0"):
        resolve_model(f"{ID}:Q4_0")
    assert hub.requests == []


def test_offline_one_of_two_must_be_picked_too(hub, offline):
    resolve_model(f"{ID}:Q8_0")
    resolve_model(f"{ID}:Q4_0")
    offline()
    with pytest.raises(HubError, match="holds 2 models in GGUF"):
        resolve_model(ID)
    assert resolve_model(f"{ID}:Q8_0").file == Q8


def test_offline_a_file_that_is_damaged_is_refused(hub, offline):
    path = resolve_model(f"{ID}:Q8_0").path
    path.resolve().write_bytes(b"x" * 20)
    offline()
    with pytest.raises(HubError, match="damaged in the cache"):
        resolve_model(f"{ID}:Q8_0")


@pytest.mark.parametrize("model", ["org/M:", "org/M/x:Q8_0", "org/M/x"])
def test_fetch_takes_no_other_name(hub, model):
    with pytest.raises(HubError, match="cannot be the name of a repository"):
        fetch(model)
    assert hub.requests == []
