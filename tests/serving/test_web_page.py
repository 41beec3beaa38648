"""The built-in page: its files and headers, who may have it, and its scripts in Node."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import Running, running

from llama_export.serving import web_page
from llama_export.serving.settings import ServerSettings

HERE = Path(__file__).parent
FOLDER = Path(web_page.__file__).parent / "page"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith((".js", ".mjs"))}
MOST_LINES, MOST_BYTES = 350, 60_000
# What could make a browser ask another server, or read a text as HTML or as a program.
ELSEWHERE = re.compile(r"https?:|\bwss?:|(?<!:)//[a-z]|@import|url\(", re.IGNORECASE)
UNSAFE = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc"
)


def ask(server: Running, method: str, path: str, headers=None):
    """Return status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


class Page(HTMLParser):
    """Ids, references and whatever the policy forbids in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.named: list[str] = []
        self.inline: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._script = tag in ("script", "style")
        self.ids += [given["id"]] if "id" in given else []
        self.loaded += [given[key] for key in ("src", "href") if key in given]
        self.named += [given[key] for key in ("for", "aria-labelledby") if key in given]
        self.inline += [key for key in given if key.startswith("on") or key == "style"]

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script and data.strip():
            self.inline.append(data)


PAGE = Page(FILES["page.html"])


def test_every_file_has_a_path_and_every_path_a_file():
    assert set(web_page.PATHS.values()) == set(FILES)
    assert web_page.PATHS["/"] == "page.html"


def test_the_page_is_small():
    assert max(len(text.splitlines()) for text in FILES.values()) <= MOST_LINES
    assert sum(len(text.encode()) for text in FILES.values()) <= MOST_BYTES


def test_the_page_loads_its_own_files_alone():
    assert PAGE.loaded
    # Relative, so that a proxy may put the page into a folder.
    assert all(f"/{each}" in web_page.PATHS for each in PAGE.loaded)
    imported = {name: set(re.findall(r"from '\./([^']+)'", text)) for name, text in SCRIPTS.items()}
    assert set().union(*imported.values()) <= set(SCRIPTS)
    reached = {name.removeprefix("page/") for name in PAGE.loaded}
    for _ in SCRIPTS:
        reached |= set().union(*(imported.get(name, set()) for name in reached))
    assert reached | {"page.html"} == set(FILES)


def test_nothing_on_the_page_runs_or_leads_elsewhere_by_itself():
    assert PAGE.inline == []
    for name, text in FILES.items():
        bare = text.replace("http://www.w3.org/2000/svg", "") if name == "icon.svg" else text
        bare = re.sub(r"^\s*//.*", "", bare, flags=re.MULTILINE)
        assert not ELSEWHERE.search(bare), name
        assert not UNSAFE.search(bare), name
    for bad in ("fetch('https://a.example')", "import '//a.example'", "url(a.png)"):
        assert ELSEWHERE.search(bad)
    assert UNSAFE.search("node.innerHTML = text")
    assert Page("<p onclick='x()'>").inline
    assert Page("<script>x()</script>").inline


def test_the_scripts_and_the_labels_name_what_is_there():
    assert len(PAGE.ids) == len(set(PAGE.ids))
    assert set(PAGE.named) <= set(PAGE.ids)
    text = "\n".join(SCRIPTS.values())
    asked = set(re.findall(r"find\('([^']+)'\)", text))
    asked |= set(re.findall(r"querySelector\('#([\w-]+)'\)", text))
    assert len(asked) > 20
    assert asked <= set(PAGE.ids)
    classes = set(re.findall(r"className: '([\w-]+)'", text))
    styled = set(re.findall(r"\.([a-z][\w-]*)", FILES["page.css"]))
    assert classes <= styled


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_scripts_hold_in_node():
    command = ["node", "--test", str(HERE / "page.test.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"^\S pass (\d+)$", done.stdout, flags=re.MULTILINE)
    assert int(passed[1]) >= 15


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_one(name):
    done = subprocess.run(["node", "--check", FOLDER / name], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(demo_bundle):  # noqa: F811
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    with running(demo_bundle, settings=ServerSettings(api_key="secret", max_tokens=100)) as found:
        yield found


@pytest.mark.onnx
@pytest.mark.parametrize("path", web_page.PATHS)
def test_the_page_is_given_without_a_key_and_kept_to_itself(server, path):
    status, headers, body = ask(server, "GET", path)
    assert status == 200
    assert body.decode() == FILES[web_page.PATHS[path]]
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    kind = {".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml"}
    suffix = Path(web_page.PATHS[path]).suffix
    assert headers["content-type"].startswith(kind.get(suffix, "text/javascript"))
    head, _, nothing = ask(server, "HEAD", path)
    assert (head, nothing) == (200, b"")


@pytest.mark.onnx
def test_what_the_page_asks_for_still_needs_the_key(server):
    for path in ("/v1/models", "/metrics", "/page", "/page/", "/page/../v1/models", "//"):
        assert ask(server, "GET", path)[0] == 401, path
    assert ask(server, "POST", "/")[0] == 405
    assert ask(server, "GET", "/", headers={"Host": "evil.example"})[0] == 403
    assert ask(server, "GET", "/", headers={"Origin": "http://evil.example"})[0] == 403
    right = {"Authorization": "Bearer secret"}
    for path in ("/page/nothing.mjs", "/page/page.html", "/page/..%2fapp.py"):
        assert ask(server, "GET", path, headers=right)[0] == 404, path


@pytest.mark.onnx
def test_the_files_of_the_page_are_not_logged_and_its_refusals_are(server):
    ask(server, "GET", "/")
    ask(server, "GET", "/page/page.mjs")
    ask(server, "GET", "/page/none.mjs", headers={"Host": "evil.example"})
    until = time.monotonic() + 60
    while not any(line.path == "/page/none.mjs" for line in server.lines):
        assert time.monotonic() < until, "the refusal is not logged"
        time.sleep(0.01)  # a line is written when the client has its answer already
    logged = [line for line in server.lines if line.path in web_page.PATHS]
    assert 200 not in {line.status for line in logged}


@pytest.mark.onnx
def test_a_model_says_which_artifact_it_is(server, demo_bundle):  # noqa: F811
    right = {"Authorization": "Bearer secret"}
    (listed,) = json.loads(ask(server, "GET", "/v1/models", headers=right)[2])["data"]
    assert json.loads(ask(server, "GET", "/v1/models/demo", headers=right)[2]) == listed
    meta = listed["meta"]
    manifest = json.loads((demo_bundle / "manifest.json").read_text(encoding="utf-8"))
    assert meta["target"] == "onnx"
    assert meta["recipe"] == manifest["quantization"]["recipe"]
    assert meta["size_bytes"] == sum(each["size_bytes"] for each in manifest["files"].values())
    assert meta["context"] == manifest["graph"]["max_context"]
    assert meta["for_chat"] is False
    assert meta["runs_in"] is None
    assert meta["max_tokens"] == {"usual": 100, "most": 100}
    assert set(meta["drawing"]) == {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
    }


def test_a_missing_node_fails_where_clients_are_required():
    """`.ci/run` asks for every client: there, a skipped page would go unnoticed."""
    if os.environ.get("LLAMA_EXPORT_REQUIRE_CLIENTS") == "1":
        assert shutil.which("node")
