"""A push to a stand-in hub, through huggingface_hub's own client: what arrives, what does not."""

from __future__ import annotations

import getpass
import hashlib
import json
import shutil
import warnings
from pathlib import Path

import pytest
import yaml
from artifacts.small_bundle import Silent
from artifacts.tiny import write_checkpoint
from fakes.hub import nothing_of_this_machine
from fakes.writable_hub import ACCOUNT, TOKEN, Repository, quick_hub

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.root_files import RECORD_NAME, is_ours, read_record
from llama_export.errors import BundleError, GatedModelError, HubError, UsageError
from llama_export.exporting.publishing.push import PushRequest, plan_push
from llama_export.sources.upload import Destination, Upload

pytest.importorskip("onnx", reason="needs the onnx extra")

NAME = f"{ACCOUNT}/tiny"
APACHE = "                                 Apache License\n                           Version 2.0\n"
LLAMA = "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date\n"


def export(folder: Path, *targets: str, licence: str = APACHE, **choices) -> Path:
    from llama_export.exporting.pipeline import ExportRequest, export_bundle

    checkpoint = write_checkpoint(folder / "tiny")
    if licence:
        (checkpoint / "LICENSE").write_text(licence)
    request = ExportRequest(
        str(checkpoint), targets or ("onnx",), folder / "out", verify=False, **choices
    )
    return export_bundle(request, Silent()).output


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("push"))


@pytest.fixture(scope="module")
def of_llama(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("llama"), licence=LLAMA)


@pytest.fixture
def output(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with quick_hub(monkeypatch, tmp_path) as running:
        yield running


def push(hub, output, name=NAME, *, licence=None, with_weights=False, **where):
    destination = Destination(name, token=TOKEN, endpoint=hub.endpoint, **where)
    upload = Upload(destination)
    plan = plan_push(PushRequest(output, name, licence, with_weights), upload.base_card)
    upload.require_account()
    seen = []
    plan.check(lambda _done, _total: None)
    sent = upload.send(plan.files, RECORD_NAME, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (plan.size_bytes, plan.size_bytes)
    return sent


def header(card: bytes) -> dict[str, object]:
    return yaml.safe_load(card.decode().split("---\n")[1])


def test_what_is_pushed_is_the_bundle_and_the_root_and_nothing_else(hub, output):
    (output / "notes.txt").write_text("mine")
    (output / "onnx" / "scratch.bin").write_bytes(b"mine")
    (output / ".env").write_text("SECRET=1")
    push(hub, output, message="First")
    there = hub.repositories[NAME]
    assert there.messages == ["First"]
    bundle = Bundle.open(output / "onnx")
    inside = {f"onnx/{name}" for name in (*bundle.manifest.files, "manifest.json")}
    root = {
        "README.md", "LICENSE", "NOTICE", "config.json", "generation_config.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "repository.json",
    }  # fmt: skip
    assert {*there.files} - {"tokenizer.model"} == (inside | root) - {"tokenizer.model"}
    for name in inside:
        assert there.files[name] == (output / name).read_bytes()
    assert there.files["config.json"] == (output / "onnx" / "config.json").read_bytes()


def test_what_arrives_is_a_bundle_that_opens(hub, output, tmp_path):
    push(hub, output)
    for name, content in hub.repositories[NAME].files.items():
        place = tmp_path / "got" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    assert Bundle.open(tmp_path / "got" / "onnx").check_hashes() == ()


def test_the_card_names_the_repository_and_its_licence(hub, output):
    push(hub, output)
    card = hub.repositories[NAME].files["README.md"]
    assert header(card) == {
        "library_name": "transformers.js",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["llama-export", "onnx", "int4", "llama"],
    }
    assert f"pipeline('text-generation', '{NAME}')" in card.decode()
    assert "OWNER/NAME" not in card.decode()


def test_nothing_of_this_machine_is_sent(hub, output, tmp_path):
    push(hub, output, with_weights=True)
    sent = b"".join([*hub.bodies, *hub.objects.values(), *hub.repositories[NAME].files.values()])
    secrets = [TOKEN, str(tmp_path), str(output), str(Path.home()) + "/"]
    assert [secret for secret in secrets if secret.encode() in sent] == []
    user = getpass.getuser()
    assert f"/{user}/".encode() not in sent


def test_the_weights_go_along_only_where_they_are_asked_for(hub, output):
    push(hub, output)
    assert not any(name.startswith("weights/") for name in hub.repositories[NAME].files)
    (output / "weights" / "mine.txt").write_text("mine")
    push(hub, output, with_weights=True)
    there = hub.repositories[NAME].files
    assert (
        there["weights/weights.safetensors"]
        == (output / "weights" / "weights.safetensors").read_bytes()
    )
    assert "weights/mine.txt" not in there
    shutil.rmtree(output / "weights")
    with pytest.raises(BundleError, match="--with-weights asks for it"):
        push(hub, output, with_weights=True)


def test_a_link_by_the_name_of_a_licence_is_refused_and_not_passed_over(hub, output, tmp_path):
    (tmp_path / "policy").write_text("Be kind.")
    (output / "USE_POLICY.md").symlink_to(tmp_path / "policy")
    with pytest.raises(UsageError, match=r"USE_POLICY\.md is a symbolic link"):
        push(hub, output)
    assert hub.requested == []


def test_weights_that_lack_a_file_or_hold_another_are_not_sent(hub, output):
    beside = output / "weights" / "config.json"
    content = beside.read_bytes()
    beside.unlink()
    with pytest.raises(BundleError, match=r"weights/config\.json is missing"):
        push(hub, output, with_weights=True)
    beside.write_bytes(content[:-1] + b" ")
    with pytest.raises(BundleError, match=r"weights/config\.json is changed"):
        push(hub, output, with_weights=True)
    assert hub.repositories == {}


def test_weights_that_go_while_they_are_checked_are_named(hub, output):
    request = PushRequest(output, NAME, with_weights=True)
    plan = plan_push(request, lambda _id: pytest.fail("asked"))
    (output / "weights" / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"weights\.safetensors cannot be read"):
        plan.check(lambda _done, _total: None)


def test_an_upload_that_broke_goes_on_where_it_was(hub, output):
    data = hashlib.sha256((output / "onnx" / "model.onnx_data").read_bytes()).hexdigest()
    hub.cut.add(data)
    with pytest.raises(HubError, match="broke off") as caught:
        push(hub, output)
    assert "not sent a second time" in caught.value.hint
    assert hub.repositories[NAME].files == {}, "a repository never shows half of an upload"
    before = list(hub.stored)
    assert before
    assert data not in before
    hub.cut.clear()
    push(hub, output)
    assert data in hub.stored
    assert sorted(set(hub.stored)) == sorted(hub.stored), "an object was sent twice"
    assert "onnx/model.onnx_data" in hub.repositories[NAME].files


def test_large_files_go_in_parts_where_the_hub_wants_that(hub, output):
    hub.part_bytes = 100_000
    push(hub, output)
    sent = hub.repositories[NAME].files["onnx/model.onnx_data"]
    assert sent == (output / "onnx" / "model.onnx_data").read_bytes()
    assert len(hub.asked("PUT", "/1")) >= 1


def test_pushed_again_nothing_is_sent_and_what_others_put_there_stays(hub, output):
    push(hub, output)
    there = hub.repositories[NAME]
    there.files["onnx/model_q4f16.onnx"] = b"somebody's variant"
    there.files["figures/plot.png"] = b"a person's"
    stored = list(hub.stored)
    push(hub, output)
    assert hub.stored == stored
    assert there.files["onnx/model_q4f16.onnx"] == b"somebody's variant"
    assert there.files["figures/plot.png"] == b"a person's"


def test_files_of_others_are_replaced_only_when_that_is_asked_for(hub, output):
    theirs = {"README.md": b"by hand", "onnx/model.onnx": b"theirs", "x.txt": b"beside"}
    hub.repositories[NAME] = Repository(branches={"main": dict(theirs)})
    with pytest.raises(HubError, match=r"did not push: README.md, onnx/model.onnx\n") as refused:
        push(hub, output)
    assert "--replace" in refused.value.hint
    assert hub.repositories[NAME].files == theirs
    assert hub.stored == []
    sent = push(hub, output, as_request=True)
    assert sent.request_url
    assert hub.repositories[NAME].files == theirs
    push(hub, output, replace=True)
    there = hub.repositories[NAME].files
    assert there["onnx/model.onnx"] == (output / "onnx" / "model.onnx").read_bytes()
    assert there["x.txt"] == b"beside"
    push(hub, output)  # it is ours by now


def test_what_somebody_writes_meanwhile_is_not_overwritten(hub, output, monkeypatch):
    push(hub, output)
    (output / "README.md").write_text("---\nlicense: apache-2.0\n---\nNew\n")
    there, ask = hub.repositories[NAME], Upload._require_ours

    def slow(*words):
        ask(*words)
        there.files["README.md"] = b"just edited"
        there.messages.append("By hand")

    monkeypatch.setattr(Upload, "_require_ours", slow)
    with pytest.raises(HubError, match="refused to write") as refused:
        push(hub, output)
    assert "somebody else wrote there" in refused.value.hint
    assert there.files["README.md"] == b"just edited"


def test_what_is_sent_is_an_output_whose_root_is_ours(hub, output, tmp_path):
    push(hub, output)
    for name, content in hub.repositories[NAME].files.items():
        if "/" not in name:
            (tmp_path / name).write_bytes(content)
    record = read_record(tmp_path)
    assert record.keys() == {path.name for path in tmp_path.iterdir() if path.is_file()} - {
        RECORD_NAME
    }
    assert all(is_ours(tmp_path, name, record) for name in record)


def test_a_private_repository_is_private_and_a_public_one_is_refused(hub, output):
    push(hub, output, private=True)
    assert hub.repositories[NAME].private
    hub.repositories[f"{ACCOUNT}/open"] = Repository()
    with pytest.raises(HubError, match="is public, and a private one was asked for"):
        push(hub, output, f"{ACCOUNT}/open", private=True)
    assert hub.repositories[f"{ACCOUNT}/open"].files == {}


def test_a_branch_and_a_pull_request_leave_main_alone(hub, output):
    push(hub, output)
    main = dict(hub.repositories[NAME].files)
    (output / "README.md").write_text("---\nlicense: apache-2.0\n---\nMine\n")
    push(hub, output, branch="next")
    sent = push(hub, output, as_request=True)
    there = hub.repositories[NAME]
    assert there.files == main
    assert there.branches["next"]["README.md"].endswith(b"Mine\n")
    assert there.requests[1]["README.md"].endswith(b"Mine\n")
    assert sent.request_url.endswith("/discussions/1")


def test_a_persons_card_and_licence_are_sent_as_they_are(hub, output):
    own = "---\nlicense: apache-2.0\ntags: [mine]\n---\n# My own words\n"
    (output / "README.md").write_text(own)
    (output / "USE_POLICY.md").write_text("Be kind.")
    push(hub, output)
    assert hub.repositories[NAME].files["README.md"].decode() == own
    assert hub.repositories[NAME].files["USE_POLICY.md"] == b"Be kind."
    assert (output / "README.md").read_text() == own


def test_a_changed_bundle_is_not_sent(hub, output):
    path = output / "onnx" / "model.onnx_data"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="is changed"):
        push(hub, output)
    assert hub.repositories == {}


def test_a_token_that_is_missing_or_wrong_is_told_before_anything_is_made(hub, output):
    with pytest.raises(GatedModelError, match="needs a token") as caught:
        Upload(Destination(NAME, endpoint=hub.endpoint)).require_account()
    assert "settings/tokens" in caught.value.hint
    with pytest.raises(GatedModelError, match="refused the token") as caught:
        Upload(Destination(NAME, token="hf_other", endpoint=hub.endpoint)).require_account()
    assert "hf_other" not in str(caught.value)
    assert hub.repositories == {}


def test_a_namespace_that_is_not_ones_own_is_refused(hub, output):
    with pytest.raises(GatedModelError, match="don't have the rights to create"):
        push(hub, output, "somebody/tiny")


@pytest.mark.parametrize("place", ["/preupload/", "/objects/batch"])
def test_a_busy_hub_is_asked_again(hub, output, place):
    hub.refuse[place], hub.refuse_times[place] = (429, "slow down"), 2
    push(hub, output)
    assert "README.md" in hub.repositories[NAME].files


def test_a_commit_that_fails_is_told_and_nothing_is_sent_twice(hub, output):
    hub.refuse["/commit/"] = (503, "maintenance")
    with pytest.raises(HubError, match=r"answered 503: .*maintenance") as caught:
        push(hub, output)
    assert "wait a little" in caught.value.hint
    hub.refuse.clear()
    stored = list(hub.stored)
    push(hub, output)
    assert hub.stored == stored


def test_a_hub_that_is_not_there_is_told(output, tmp_path, monkeypatch):
    with nothing_of_this_machine(monkeypatch, tmp_path):
        place = Destination(NAME, token=TOKEN, endpoint="http://127.0.0.1:9")
        with pytest.raises(HubError, match="broke off"):
            Upload(place).require_account()


def test_metadata_that_the_hub_refuses_is_told_before_the_upload(hub, output):
    (output / "README.md").write_text("---\ntags: [mine]\n---\n")
    with pytest.raises(HubError, match="no license"):
        push(hub, output)
    assert hub.repositories[NAME].files == {}


def test_the_bases_page_says_what_the_files_do_not(hub, output):
    """Licence and languages, where a manifest names the repository that the model came from."""
    hub.repositories["maker/tiny"] = Repository(card={"license": "mit", "language": ["en", "de"]})
    for path in (output / "onnx").glob("LICENSE"):
        path.unlink()
    manifest = json.loads((output / "onnx" / "manifest.json").read_text())
    del manifest["files"]["LICENSE"]
    manifest["model"] |= {"hub_id": "maker/tiny", "revision": "0" * 40}
    (output / "onnx" / "manifest.json").write_text(json.dumps(manifest))
    (output / "LICENSE").unlink()
    push(hub, output)
    said = header(hub.repositories[NAME].files["README.md"])
    assert (said["license"], said["language"]) == ("mit", ["en", "de"])
    assert (said["base_model"], said["base_model_relation"]) == ("maker/tiny", "quantized")


# Licences.


def test_a_llama_licence_decides_over_the_name(hub, of_llama):
    for name in (f"{ACCOUNT}/tiny", f"{ACCOUNT}/my-llama"):
        with pytest.raises(UsageError, match='begin with "Llama"') as caught:
            push(hub, of_llama, name)
        assert f"say {ACCOUNT}/Llama-" in caught.value.hint
    assert hub.requested == [], "it was refused before anybody was asked"
    push(hub, of_llama, f"{ACCOUNT}/Llama-tiny")
    there = hub.repositories[f"{ACCOUNT}/Llama-tiny"].files
    assert header(there["README.md"])["license"] == "llama3.2"
    assert "**Built with Llama**" in there["README.md"].decode()
    assert there["LICENSE"].decode() == LLAMA


def test_llama_3_wants_its_own_name(hub, tmp_path):
    output = export(tmp_path, licence="META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n")
    with pytest.raises(UsageError, match='begin with "Llama 3"'):
        push(hub, output, f"{ACCOUNT}/Llama-tiny")
    push(hub, output, f"{ACCOUNT}/Llama-3-tiny")


def test_the_agreement_must_go_along(hub, of_llama, tmp_path):
    output = Path(shutil.copytree(of_llama, tmp_path / "copy"))
    name = f"{ACCOUNT}/Llama-tiny"
    bare = export(tmp_path / "bare", licence="")
    with pytest.raises(UsageError, match="wants a copy of itself") as caught:
        push(hub, bare, name, licence="llama3.2")
    assert "https://www.llama.com/llama3_2/license/" in caught.value.hint
    (bare / "LICENSE").write_text(LLAMA)
    push(hub, bare, name)
    assert hub.repositories[name].files["LICENSE"].decode() == LLAMA
    with pytest.raises(UsageError, match=r"own files say llama3\.2"):
        push(hub, output, name, licence="mit")


def test_an_unknown_licence_must_be_named(hub, tmp_path):
    output = export(tmp_path, licence="")
    with pytest.raises(UsageError, match="licence of tiny is not known") as caught:
        push(hub, output)
    assert "--licence ID" in caught.value.hint
    with pytest.raises(UsageError, match="no identifier"):
        push(hub, output, licence="All rights reserved")
    push(hub, output, licence="cc-by-4.0")
    assert header(hub.repositories[NAME].files["README.md"])["license"] == "cc-by-4.0"


@pytest.mark.parametrize(
    "name", ["tiny", "me/", "me/a/b", "me/ä", "me/..", "me/a--b", "https://x/y"]
)
def test_what_is_no_repository_is_refused(output, name):
    with pytest.raises(UsageError, match="expected OWNER/NAME"):
        plan_push(PushRequest(output, name), lambda _id: pytest.fail("asked"))


def test_the_folder_of_one_bundle_is_told_apart_from_the_output(output):
    def nobody(_id):
        pytest.fail("asked")

    with pytest.raises(BundleError, match="is one bundle") as caught:
        plan_push(PushRequest(output / "onnx", NAME), nobody)
    assert caught.value.hint == f"push {output}"
    with pytest.raises(BundleError, match="holds no bundle"):
        plan_push(PushRequest(output.parent, NAME), nobody)


def test_no_warning_reaches_a_user(hub, output):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        push(hub, output)
