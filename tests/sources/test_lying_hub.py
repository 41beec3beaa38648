"""A hub that lies: answers of any shape, impossible sizes and names, and a token kept secret."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path

import pytest
from fakes.hub import COMMIT, REPOSITORY, Hub, serve

from llama_export.errors import HubError, OutputError
from llama_export.sources.repository import fetch

pytestmark = pytest.mark.usefixtures("alone")

WEIGHTS = "model.safetensors"
SECRET = "hf_SECRETsecret"
MOST_S = 2.0


@pytest.fixture
def hub():
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "LICENSE": b"MIT", WEIGHTS: b"w" * 5000}
    with serve(Hub(files)) as running:
        yield running


def refusal(get, **options) -> HubError:
    """Require a HubError at once, in few words and without the token."""
    begun = time.process_time()
    with pytest.raises(HubError) as caught:
        get(token=SECRET, **options)
    assert time.process_time() - begun < MOST_S
    whole = "".join(traceback.format_exception(caught.value))
    assert SECRET not in whole
    assert "\x1b" not in caught.value.message + caught.value.hint
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 800
    assert caught.value.hint
    return caught.value


def listing(**changes: object) -> bytes:
    names = [{"rfilename": name} for name in ("config.json", "tokenizer.json", WEIGHTS)]
    return json.dumps({"sha": COMMIT, "siblings": names, **changes}).encode()


DEEP = b"[" * 200_000

LISTINGS = {
    "nothing": b"",
    "html": b"<!doctype html><html><body>Sign in to the Wi-Fi</body></html>",
    "null": b"null",
    "true": b"true",
    "a number": b"7",
    "text": b'"main"',
    "a list": b"[]",
    "a list of lists": b"[[1]]",
    "an empty object": b"{}",
    "nested deep": DEEP,
    "nested deep inside": b'{"sha": ' + DEEP + b"}",
    "closed, nested deep": b'{"sha": ' + DEEP + b"]" * 200_000 + b"}",
    "not UTF-8": b'{"sha": "\xff"}',
    "NaN": b'{"sha": NaN}',
    "a number of 5000 digits": b'{"sha": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"sha": "a", "sha": "b"}',
    "cut short": listing()[:-5],
    "longer than any": b" " * (16 * 2**20 + 1),
    "no commit": listing(sha=None),
    "a commit that is a number": listing(sha=7),
    "a commit that is a list": listing(sha=[COMMIT]),
    "a commit that is a path": listing(sha="../../../evil"),
    "a commit in capitals": listing(sha=COMMIT.upper()),
    "a commit with a line break": listing(sha=COMMIT + "\n"),
    "no files": listing(siblings=None),
    "files that are an object": listing(siblings={"rfilename": "config.json"}),
    "files that are text": listing(siblings="config.json"),
    "files that are numbers": listing(siblings=[1, 2, 3]),
    "files that are null": listing(siblings=[None]),
    "files that are lists": listing(siblings=[["config.json"]]),
    "files without names": listing(siblings=[{}]),
    "names that are numbers": listing(siblings=[{"rfilename": 7}]),
    "names that are lists": listing(siblings=[{"rfilename": ["config.json"]}]),
    "an empty list": listing(siblings=[]),
    "weights alone": listing(siblings=[{"rfilename": WEIGHTS}]),
}


@pytest.mark.parametrize("lie", LISTINGS)
def test_a_list_of_files_of_any_shape_is_named(hub, get, tmp_path, lie):
    hub.listing = LISTINGS[lie]
    refusal(get)
    assert not list((tmp_path / "cache").rglob("snapshots"))


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE\x1b[31m",
        "LICENSE\n",
        "LICENSE\\..\\..\\evil",
        "LICENSE:stream",
        "LICENSE" + "n" * 5000,
        "LICENSE\u202e",
        "LICENSE\ud800",
        "LICENSE\0",
    ],
)
def test_names_that_no_copy_could_have_are_refused(hub, get, name):
    names = [{"rfilename": each} for each in ("config.json", "tokenizer.json", WEIGHTS, name)]
    hub.listing = listing(siblings=names)
    assert "name" in refusal(get).message
    assert not [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]


def test_thousands_of_shards_are_refused_before_one_is_asked_for(hub, get):
    names = [f"model-{index:05}-of-99999.safetensors" for index in range(20_000)]
    names += ["model.safetensors.index.json", "config.json"]
    hub.listing = listing(siblings=[{"rfilename": name} for name in names])
    assert "files of one model" in refusal(get).message
    assert len(hub.requests) == 1


SIZES = (
    "-1", "-99999999999", "abc", "1e9", "0x10", "1.5", "٣٣x", "9" * 30, "9" * 6000, str(2**44 + 1)
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_sizes_that_no_file_has_are_refused(hub, get, size):
    hub.forged = {"X-Linked-Size": size.encode("utf-8").decode("latin-1")}
    refusal(get)
    assert not [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]


def test_a_small_file_of_gigabytes_is_refused(hub, get):
    hub.forged = {"X-Linked-Size": str(2**30)}
    assert "which has at most" in refusal(get).message


@pytest.mark.parametrize("etag", ["", '"../../evil"', '"' + "a" * 50 + '"'])
def test_checksums_that_are_none_are_refused(hub, get, etag):
    hub.forged = {"ETag": etag}
    assert "checksum" in refusal(get).message


BODIES = {
    "nested deep": DEEP,
    "a list": b"[1]",
    "errors that are numbers": b'{"errors": [1, 2]}',
    "errors that are a number": b'{"errors": 7}',
    "an error that is an object": b'{"error": {"a": [1]}}',
    "null": b"null",
    "not UTF-8": b"\xff\xfe",
    "megabytes": b"x" * 10_000_000,
    "escapes": json.dumps({"error": "\x1b]0;title\x07 " + "x" * 3000}).encode(),
    "the token": json.dumps({"error": f"no such token: {SECRET}"}).encode(),
}


@pytest.mark.parametrize("status", [401, 404, 429, 500])
@pytest.mark.parametrize("body", BODIES)
def test_refusals_with_any_body_are_named(hub, get, status, body):
    hub.refuse["/api/models/"] = (status, {"Content-Type": "application/json"})
    hub.body = BODIES[body]
    refusal(get)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "message", [f"bad token {SECRET}", "x" * 20_000, "\x9b31m red", "a\tb", "?token=1"]
)
def test_what_the_hub_says_is_short_clean_and_without_the_token(hub, get, status, message):
    hub.refuse["/api/models/"] = (status, {"X-Error-Message": message})
    error = refusal(get)
    assert "\x9b" not in error.message


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (302, "http://127.0.0.1:1/"),
        (302, "http://[::bad"),
        (302, "ftp://example/"),
        (302, "/api/models/" + REPOSITORY),
        (302, "//"),
        (307, "\x01"),
        (308, "http://" + "a" * 300 + "/"),
    ],
)
@pytest.mark.parametrize("part", ["/api/models/", "/resolve/"])
def test_redirects_to_nowhere_are_named(hub, get, part, status, location):
    hub.refuse[part] = (status, {"Location": location})
    refusal(get)


ENDPOINTS = (
    "http://", "http://[", "ftp://127.0.0.1", "nowhere", "http://127.0.0.1:99999", "http://a b",
    "\0",
)  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_address_that_is_none_is_named(get, endpoint):
    refusal(get, endpoint=endpoint)


def test_a_password_in_the_hubs_address_is_not_shown(hub, get):
    hub.listing = b"[]"
    error = refusal(get, endpoint=hub.endpoint.replace("//", "//me:pa55word@"))
    assert "pa55word" not in error.message + error.hint
    assert "127.0.0.1" in error.message


# A token.

IN_THE_ENVIRONMENT = (
    f"{SECRET}\nx", f"{SECRET}\r\nX: y", f"{SECRET} x", f"{SECRET}é", f"{SECRET}\x1b[31m",
    SECRET + "x" * 5000,
)  # fmt: skip
GIVEN = (*IN_THE_ENVIRONMENT, f"{SECRET}\x00", f"{SECRET}\ud800")
TOKENS = [("given", token) for token in GIVEN] + [
    (variable, token)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    for token in IN_THE_ENVIRONMENT
]


@pytest.mark.parametrize(("way", "token"), TOKENS)
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(
    hub, get, monkeypatch, way, token
):
    if way != "given":
        monkeypatch.setenv(way, token)
    with pytest.raises(HubError, match="is no token") as caught:
        get(token=token if way == "given" else None)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert hub.requests == []


@pytest.mark.parametrize("content", [b"hf_SECRET\xff", b"hf_SECRET x", "hf_SECRETé".encode()])
def test_a_saved_login_that_cannot_be_one_is_refused_too(hub, get, tmp_path, content):
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_bytes(content)
    with pytest.raises(HubError, match="the saved login") as caught:
        get()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert hub.requests == []


@pytest.mark.parametrize("token", [f" {SECRET}\n", SECRET])
def test_blanks_around_a_token_do_not_matter(hub, get, token):
    get(token=token)
    assert {r.authorization for r in hub.requests if r.host == "hub"} == {f"Bearer {SECRET}"}


def test_nobody_prints_the_token_of_a_repository():
    from llama_export.sources.hub import Repository

    assert SECRET not in repr(Repository("a/b", "main", SECRET, "http://x", Path("c")))


# Names of repositories.


@pytest.mark.parametrize("name", ["a--b/c", "a/b--c", "a/b..c", "a/" + "b" * 97, "ä/b", "a/b\n"])
def test_names_that_no_repository_has_are_refused_without_a_request(hub, tmp_path, name):
    with pytest.raises(HubError, match="cannot be the name of a repository"):
        fetch(name, endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    assert hub.requests == []


def test_a_cache_that_lies_about_the_commit_is_not_followed(hub, get, tmp_path):
    get()
    (ref,) = (tmp_path / "cache").rglob("refs/main")
    for content in (b"../../../evil", b"\xff\xfe", b"", COMMIT.upper().encode()):
        ref.write_bytes(content)
        with pytest.raises(HubError, match="no complete copy"):
            get(endpoint="http://127.0.0.1:1")


def test_a_full_cache_that_cannot_be_written_still_serves(hub, get, monkeypatch):
    folder = get()

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    monkeypatch.setattr(Path, "write_text", forbidden)
    assert get() == folder
    (folder / "LICENSE").unlink()
    with pytest.raises(OutputError, match="cannot be written"):
        get()
