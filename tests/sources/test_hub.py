"""Names of models, and downloads from a stand-in hub on 127.0.0.1; nothing leaves this machine."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifacts.tiny import write_checkpoint
from fakes.hub import COMMIT, REPOSITORY, Hub, serve

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import CheckpointError, GatedModelError, HubError, OutputError
from llama_export.llama.presets import PRESETS
from llama_export.sources import repository as repository_module
from llama_export.sources import resolve as hub_module
from llama_export.sources.repository import Fetched, fetch
from llama_export.sources.resolve import (
    ALIASES,
    ModelSource,
    NamedModel,
    name_model,
    resolve_model,
)

pytestmark = pytest.mark.usefixtures("alone")

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SIZE = 300_000
GATED = {"X-Error-Code": "GatedRepo"}
UNWANTED = {
    "original/consolidated.00.pth",
    "original/LICENSE.txt",
    "README.md",
    "model.safetensors.index.json.bak",
    "pytorch_model.bin",
    "LICENSES/other.txt",
}


@pytest.fixture
def hub():
    small = {
        "config.json": b'{"a": 1}',
        "generation_config.json": b"{}",
        "tokenizer.json": b"{}",
        "original/tokenizer.model": b"IQ== 0\n",
        "LICENSE.txt": b"licence",
        "USE_POLICY.md": b"policy",
    }
    unwanted = dict.fromkeys(UNWANTED, b"x")
    content = random.Random(0).randbytes(SIZE)
    with serve(Hub({**small, **unwanted, WEIGHTS: content})) as running:
        yield running


@pytest.fixture
def get(hub, tmp_path):
    def get(**options) -> Path:
        options = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", **options}
        found = fetch(REPOSITORY, **options)
        assert found.commit == COMMIT
        return found.path

    return get


def refused_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def kept_bytes(tmp_path: Path) -> int:
    return sum(p.stat().st_size for p in tmp_path.rglob("*.incomplete"))


def blobs(tmp_path: Path) -> list[Path]:
    return sorted(p for p in tmp_path.rglob("blobs/*") if p.is_file())


# Names.


def test_aliases_lead_to_their_makers_repositories(monkeypatch, tmp_path):
    asked = []

    def fake(hub_id, *, revision, token, progress):
        asked.append((hub_id, revision, token))
        return Fetched(tmp_path, COMMIT)

    monkeypatch.setattr(hub_module, "fetch", fake)
    for alias, hub_id in ALIASES.items():
        source = resolve_model(alias, revision="v1", token="hf_x")
        assert source == ModelSource(alias, tmp_path, hub_id, COMMIT)
        assert asked[-1] == (hub_id, "v1", "hf_x")
        assert hub_id.endswith("Instruct") == alias.endswith(("Instruct", "instruct"))
    assert {*ALIASES} == {*PRESETS}
    assert resolve_model("some/model-7").name == "model-7"


def test_demo_is_in_the_package(monkeypatch, tmp_path):
    assert Path(hub_module.__file__).parents[1] / "demo" == hub_module.DEMO_FOLDER
    monkeypatch.setattr(hub_module, "DEMO_FOLDER", write_checkpoint(tmp_path / "stand-in"))
    source = resolve_model("demo")
    assert source == ModelSource("demo", tmp_path / "stand-in", None, None)
    HfCheckpoint.open(source.path)


def test_demo_that_is_missing_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(hub_module, "DEMO_FOLDER", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="demo model is missing"):
        resolve_model("demo")


@pytest.mark.parametrize("written", ["./m", "m/", "m", "{absolute}", "../{parent}/m", "org/m"])
def test_local_folders(monkeypatch, tmp_path, written):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "org" / "m").mkdir(parents=True)
    model = written.format(absolute=tmp_path / "m", parent=tmp_path.name)
    source = resolve_model(model)
    assert source.name == "m"
    assert source.path.is_dir()
    assert (source.hub_id, source.revision) == (None, None)


def test_a_folder_wins_over_an_alias_only_when_written_as_a_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_module, "DEMO_FOLDER", write_checkpoint(tmp_path / "stand-in"))
    monkeypatch.setattr(hub_module, "fetch", lambda hub_id, **_: Fetched(Path("fetched"), COMMIT))
    for name in ("demo", "3.2-1B"):
        (tmp_path / name).mkdir()
        assert resolve_model(f"./{name}").path.resolve() == tmp_path / name
        assert resolve_model(name).path.resolve() != tmp_path / name


@pytest.mark.parametrize(
    "model", ["./nowhere", "/nowhere/x", "nowhere/", "~/nowhere/x", "../n/x/y"]
)
def test_a_path_that_is_not_there_is_no_hub_id(monkeypatch, tmp_path, model):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        resolve_model(model)


@pytest.mark.parametrize(
    ("model", "alias"),
    [
        ("3.2-1b", "3.2-1B"),
        ("Llama-3.2-3B", "3.2-3B"),
        ("Meta-Llama-3-8B", "3-8B"),
        ("llama3.1-8B-instruct", "3.1-8B-Instruct"),
        ("llama3.2:1b", "3.2-1B"),
        ("SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("smollm2:1.7b", "smollm2-1.7b"),
    ],
)
def test_an_alias_may_be_spelt_as_others_spell_it(model, alias, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_model(model) == name_model(alias) == NamedModel(alias, None, ALIASES[alias], True)
    if ":" not in model:
        Path(model).mkdir()
        assert name_model(model).path == Path(model)


@pytest.mark.parametrize(
    ("model", "close"),
    [
        ("3.2-2B", "3.2-3B"),
        ("3.2-1B-Intruct", "3.2-1B-Instruct"),
        ("dmeo", "demo"),
    ],
)
def test_an_unknown_name_gets_its_closest_match(model, close):
    with pytest.raises(HubError, match="did you mean") as caught:
        resolve_model(model)
    assert caught.value.message.endswith(f"did you mean {close}?")
    assert "llama-export list" in caught.value.hint


@pytest.mark.parametrize("model", ["", "zzz", "a/b/c", "a b/c", "org/", "-x/y", "a/../b"])
def test_what_is_no_name_is_refused_without_a_request(model):
    with pytest.raises((HubError, CheckpointError)):
        resolve_model(model)


def test_revision_of_a_folder_is_refused(tmp_path):
    with pytest.raises(HubError, match="--revision v1"):
        resolve_model(str(tmp_path), revision="v1")


# A download that goes well.


def test_only_the_needed_files_come(hub, get):
    folder = get()
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "original/tokenizer.model",
        "LICENSE.txt",
        "USE_POLICY.md",
        WEIGHTS,
    }
    assert all((folder / name).read_bytes() == hub.files[name] for name in found)
    assert folder.name == COMMIT
    assert not [r for r in hub.requests if r.path.endswith((".pth", ".bin"))]


def test_sharded_weights_come_with_their_index(hub, get):
    del hub.files[WEIGHTS]
    shards = {f"model-0000{i}-of-00002.safetensors": b"shard %d" % i for i in (1, 2)}
    index = json.dumps({"weight_map": {name: name for name in shards}}).encode()
    stale = {"other.safetensors": b"x", "model-00001-of-00003.safetensors": b"x"}
    hub.files |= {**shards, INDEX: index, **stale}
    hub.large = frozenset(shards)
    names = {path.name for path in get().iterdir()}
    assert {*shards, INDEX} <= names
    assert not names & stale.keys()


def test_shards_of_any_name_come_when_the_index_names_them(hub, get):
    del hub.files[WEIGHTS]
    hub.files |= {"ft-model-1.safetensors": b"x"}
    hub.files |= {INDEX: json.dumps({"weight_map": {"a": "ft-model-1.safetensors"}}).encode()}
    assert (get() / "ft-model-1.safetensors").read_bytes() == b"x"


@pytest.mark.parametrize("weights", [False, True])
def test_shards_that_are_not_there_are_named_before_any_comes(hub, get, weights):
    del hub.files[WEIGHTS]
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    hub.files |= {
        names[0]: b"x",
        INDEX: json.dumps({"weight_map": dict(enumerate(names))}).encode(),
    }
    with pytest.raises(HubError, match=f"lacks {names[1]}, {names[2]}, which {INDEX} names"):
        get(weights=weights)
    fetched = {r.path.rpartition("/")[2] for r in hub.requests if "/resolve/" in r.path}
    assert fetched == {INDEX}


def test_shards_without_their_index_are_refused_before_the_download(hub, get):
    del hub.files[WEIGHTS], hub.files["pytorch_model.bin"]
    hub.files |= {f"model-0000{i}-of-00002.safetensors": b"x" for i in (1, 2)}
    with pytest.raises(HubError, match="has no weights") as caught:
        get()
    assert "model.safetensors.index.json" in caught.value.hint
    assert not [r for r in hub.requests if "/resolve/" in r.path]


def test_the_small_files_come_without_the_weights(hub, get):
    folder = get(weights=False)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == set(hub.files) - UNWANTED - {WEIGHTS}
    assert hub.sent("GET", WEIGHTS) == []
    with pytest.raises(HubError, match="no complete copy"):
        get(endpoint=refused_port())
    hub.requests.clear()
    assert get() == folder
    assert [r.path for r in hub.requests if r.method == "GET" and r.host == "store"] == [
        f"/{WEIGHTS}"
    ]


def test_everything_cached_costs_one_request(hub, get):
    first = get()
    hub.requests.clear()
    assert get() == first
    assert [r.path.startswith("/api/models/") for r in hub.requests] == [True]


def test_huggingface_hub_finds_what_we_downloaded(hub, get, tmp_path):
    from huggingface_hub import hf_hub_download

    folder = get()
    hub.requests.clear()
    path = hf_hub_download(REPOSITORY, WEIGHTS, cache_dir=tmp_path / "cache", local_files_only=True)
    assert Path(path) == folder / WEIGHTS
    assert hub.requests == []


def test_progress_counts_all_bytes_once(hub, get):
    seen = []
    folder = get(progress=lambda done, total: seen.append((done, total)))
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert {total for _, total in seen} == {size}
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 8


def test_nothing_is_printed(hub, get, capfd):
    hub.extra_headers["X-Xet-Hash"] = "a" * 64
    hub.extra_headers["X-Xet-Refresh-Route"] = "/nowhere"
    get()
    assert capfd.readouterr() == ("", "")


def test_revision_is_passed_on_and_pinned(hub, get):
    get(revision="refs/pr/1")
    assert hub.requests[0].path.endswith("/revision/refs%2Fpr%2F1")
    assert all(f"/resolve/{COMMIT}/" in r.path for r in hub.requests[1:] if r.host == "hub")


def test_token_goes_to_the_hub_and_never_to_the_store(hub, get):
    get(token="hf_secret")
    assert {r.authorization for r in hub.requests if r.host == "hub"} == {"Bearer hf_secret"}
    assert {r.authorization for r in hub.requests if r.host == "store"} == {None}
    assert hub.sent("GET", WEIGHTS)


@pytest.mark.parametrize("where", ["environment", "login"])
def test_token_from_the_environment_or_the_login(hub, get, monkeypatch, tmp_path, where):
    if where == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_found")
    else:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "token").write_text("hf_found\n")
    get()
    assert {r.authorization for r in hub.requests if r.host == "hub"} == {"Bearer hf_found"}


# A download that breaks.


def test_broken_connection_resumes(hub, get):
    hub.break_at[WEIGHTS] = [100_000, 50_000]
    folder = get()
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    ranges = [r.range for r in hub.sent("GET", WEIGHTS)]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_resumes_too(hub, get, tmp_path):
    hub.break_at[WEIGHTS] = [100_000, *[0] * 20]
    with pytest.raises(HubError, match=f"broke off at byte 100000 of {SIZE}") as caught:
        get()
    assert "same command again" in caught.value.hint
    assert [p.stat().st_size for p in blobs(tmp_path) if p.suffix == ".incomplete"] == [100_000]
    assert not list(tmp_path.rglob("snapshots"))
    hub.break_at.clear()
    hub.requests.clear()
    assert (get() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert [r.range for r in hub.sent("GET", WEIGHTS)] == ["bytes=100000-"]
    assert not [p for p in blobs(tmp_path) if p.suffix == ".incomplete"]


def test_server_without_ranges_starts_again(hub, get):
    hub.ranges = False
    hub.break_at[WEIGHTS] = [100_000]
    assert (get() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_server_without_ranges_that_keeps_breaking_is_given_up(hub, get):
    hub.ranges = False
    hub.break_at[WEIGHTS] = [100_000, 50_000] * 10
    with pytest.raises(HubError, match="broke off"):
        get()
    assert len(hub.sent("GET", WEIGHTS)) < 10


def test_busy_server_is_asked_again(hub, get):
    hub.busy = 3
    assert (get() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_server_that_stays_busy_is_given_up(hub, get):
    hub.busy = 1000
    with pytest.raises(HubError, match="answered 503"):
        get()


def test_partial_file_longer_than_the_file_is_not_continued(hub, get, tmp_path):
    folder = tmp_path / "cache" / f"models--{REPOSITORY.replace('/', '--')}" / "blobs"
    folder.mkdir(parents=True)
    partial = folder / f"{hub.checksum(WEIGHTS)}.llama-export.incomplete"
    partial.write_bytes(b"x" * (SIZE + 1))
    assert (get() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_checksum_is_refused_and_removed(hub, get, tmp_path, name):
    content = bytearray(hub.files[name])
    content[len(content) // 2] ^= 1
    hub.instead[name] = bytes(content)
    with pytest.raises(HubError, match=f"{name} was damaged") as caught:
        get()
    assert type(caught.value) is HubError
    assert hub.checksum(name) in caught.value.message
    assert not [p for p in blobs(tmp_path) if p.name.startswith(hub.checksum(name))]
    assert not list(tmp_path.rglob("snapshots"))
    hub.instead.clear()
    assert (get() / name).read_bytes() == hub.files[name]


def test_damaged_partial_file_is_noticed(hub, get, tmp_path):
    hub.break_at[WEIGHTS] = [100_000, *[0] * 20]
    with pytest.raises(HubError):
        get()
    hub.break_at.clear()
    (partial,) = tmp_path.rglob("*.incomplete")
    partial.write_bytes(bytes(100_000))
    with pytest.raises(HubError, match="damaged"):
        get()
    assert (get() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_more_bytes_than_announced_are_refused(hub, get, tmp_path):
    hub.instead[WEIGHTS] = hub.files[WEIGHTS] + b"more"
    with pytest.raises(HubError, match="more than the"):
        get()
    assert not list(tmp_path.rglob("*.incomplete"))


KILLED = """
import sys
from pathlib import Path
from llama_export.sources.repository import fetch
fetch(sys.argv[1], endpoint=sys.argv[2], cache_dir=Path(sys.argv[3]))
"""


def test_killed_download_resumes(hub, get, tmp_path):
    """SIGKILL in the middle of the large file: what came is kept, and nothing looks finished."""
    hub.stall_at[WEIGHTS] = 100_000
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, REPOSITORY, hub.endpoint, str(tmp_path / "cache")],
        env=child_environment(),
    )
    try:
        deadline = time.monotonic() + 30
        while kept_bytes(tmp_path) < 50_000 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
        hub.go_on.set()
    kept = kept_bytes(tmp_path)
    assert 50_000 <= kept <= 100_000
    assert not list(tmp_path.rglob("snapshots"))
    hub.stall_at.clear()
    hub.requests.clear()
    assert (get() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert [r.range for r in hub.sent("GET", WEIGHTS)] == [f"bytes={kept}-"]


# A hub that refuses.


def test_gated_without_token(hub, get):
    hub.refuse["/resolve/"] = (401, GATED)
    with pytest.raises(GatedModelError, match="accepted its licence") as caught:
        get()
    assert caught.value.exit_code == 13
    assert f"{hub.endpoint}/{REPOSITORY}" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint
    assert "settings/tokens" in caught.value.hint


def test_gated_with_a_token_that_has_no_access(hub, get):
    hub.refuse["/resolve/"] = (403, GATED)
    with pytest.raises(GatedModelError, match="has not been given access") as caught:
        get(token="hf_x")
    assert f"{hub.endpoint}/{REPOSITORY}" in caught.value.hint


@pytest.mark.parametrize("status", [401, 403])
def test_refused_token(hub, get, status):
    hub.refuse["/api/models/"] = (status, {"X-Error-Message": "Invalid credentials"})
    with pytest.raises(GatedModelError, match=r"refused the token.*Invalid credentials"):
        get(token="hf_wrong")


@pytest.mark.parametrize(
    ("part", "code", "match"),
    [
        ("/api/models/", "RepoNotFound", "has no model"),
        ("/api/models/", "RevisionNotFound", "no revision main"),
        ("/resolve/", "EntryNotFound", "lists a file that is not there"),
        ("/api/models/", "", "answered 404"),
    ],
)
def test_not_found(hub, get, part, code, match):
    hub.refuse[part] = (404, {"X-Error-Code": code} if code else {})
    with pytest.raises(HubError, match=match) as caught:
        get()
    assert not isinstance(caught.value, GatedModelError)
    assert caught.value.hint


@pytest.mark.parametrize("revision", ["../../x", "a b", "-x", "", "/x"])
def test_impossible_revisions(hub, get, revision):
    if revision:
        with pytest.raises(HubError, match="revision"):
            get(revision=revision)
        assert hub.requests == []


def test_repository_without_safetensors(hub, get):
    del hub.files[WEIGHTS]
    folder = get()
    assert (folder / "pytorch_model.bin").is_file(), "it is read as tensors alone"
    hub.files["weights.npz"] = hub.files.pop("pytorch_model.bin")
    with pytest.raises(HubError, match="has no weights") as caught:
        get()
    assert "weights for MLX (weights.npz)" in caught.value.message


def test_repository_without_config(hub, get):
    del hub.files["config.json"]
    with pytest.raises(HubError, match=r"no config\.json"):
        get()


@pytest.mark.parametrize("etag", ["", "../../../evil", "W/abc", "A" * 64])
def test_checksum_that_is_none_is_refused(hub, get, tmp_path, etag):
    hub.etag = etag
    with pytest.raises(HubError, match="checksum"):
        get()
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("commit", ["", "../../evil", "main"])
def test_commit_that_is_none_is_refused(hub, get, commit):
    hub.commit = commit
    with pytest.raises(HubError, match="gave no commit"):
        get()


# No network.


def test_no_network_and_nothing_cached(get):
    started = time.monotonic()
    with pytest.raises(HubError, match="cannot be reached") as caught:
        get(endpoint=refused_port())
    assert time.monotonic() - started < 5
    assert "--model demo" in caught.value.hint


def test_no_network_uses_the_cached_copy(hub, get, caplog):
    folder = get()
    assert get(endpoint=refused_port()) == folder
    assert COMMIT in caplog.text
    assert "cannot be reached" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 503])
def test_broken_hub_counts_as_no_network(hub, get, status):
    folder = get()
    hub.refuse["/api/models/"] = (status, {})
    assert get() == folder


def test_offline_mode(hub, get, monkeypatch):
    from huggingface_hub import constants

    folder = get()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert get() == folder
    assert hub.requests == []


def test_cached_copy_of_another_revision_is_not_used(hub, get):
    get()
    with pytest.raises(HubError, match="at v2"):
        get(endpoint=refused_port(), revision="v2")


def test_cached_copy_by_its_commit(hub, get):
    folder = get()
    assert get(endpoint=refused_port(), revision=COMMIT) == folder


@pytest.mark.parametrize(
    "index", ['{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "x"]
)
def test_incomplete_cached_copy_is_not_used(hub, get, index):
    folder = get()
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(HubError, match="no complete copy"):
        get(endpoint=refused_port())


def test_network_that_dies_after_the_listing(hub, get):
    hub.refuse["/resolve/"] = (500, {})
    with pytest.raises(HubError, match="answered 500"):
        get()


# A disk that refuses.


def test_disk_too_small_is_said_before_the_download(hub, get, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(repository_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="are free") as caught:
        get()
    assert "HF_HOME" in caught.value.hint
    assert not [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]


def test_disk_that_fills_up(hub, get, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        get()


def test_cache_that_cannot_be_written(hub, get, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        get(cache_dir=tmp_path / "file")


# The whole of it, as a user's process.

RESOLVE = """
import sys
from llama_export.sources.resolve import resolve_model
assert "torch" not in sys.modules and "huggingface_hub" not in sys.modules
source = resolve_model("3.2-1B")
print(source.name, source.hub_id, source.revision, source.path)
"""


def test_alias_in_a_fresh_process(hub, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RESOLVE],
        env=child_environment() | {"HF_ENDPOINT": hub.endpoint},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    name, hub_id, commit, folder = run.stdout.split()
    assert (name, hub_id, commit) == ("3.2-1B", REPOSITORY, COMMIT)
    assert Path(folder).is_relative_to(tmp_path / "home")
    assert (Path(folder) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
