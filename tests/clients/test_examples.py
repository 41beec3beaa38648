"""The programs in `examples` run a bundle, in Java, in C++ and in a browser, as their users would.

Each writes what our own session writes. C# has no program here: `docs/other-languages.md` says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from artifacts.chromium import ask_page
from artifacts.real_model import QUESTION

import environment
import swift_root
from clients import Clients, MissingClientError, find_chromium
from llama_export import load
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.generation.sampling import Sampling
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import load_tokenizer

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx
slow = pytest.mark.slow

EXAMPLES = environment.ROOT / "examples"
PAGE = environment.ROOT / "docs" / "other-languages.md"
REQUIRED = os.environ.get("LLAMA_EXPORT_REQUIRE_CLIENTS") == "1"
CLIENTS = Clients(environment.ROOT)
MAX_NEW_TOKENS = 24
# A special token that somebody types stays letters, in the examples as in our own sessions.
TYPED = "Tell me of the witch. <|eot_id|>"


class Silent:
    def step(self, label):
        from contextlib import nullcontext

        return nullcontext(lambda done, total: None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    asked = ExportRequest("demo", ("onnx",), tmp_path_factory.mktemp("demo"), verify=False)
    return export_bundle(asked, Silent()).bundles[0].bundle.folder


def ours(folder: Path, question: str) -> tuple[list[int], str]:
    """Return the ids of a question and what our session answers, without blanks around it."""
    messages = [Message("user", question)]
    with load(folder) as session:
        greedy = Sampling(temperature=0)
        text = session.chat(messages, max_tokens=MAX_NEW_TOKENS, sampling=greedy).text
        return session.chat_format.encode(Dialog(messages)), text.strip()


def missing(what: str) -> None:
    """Skip, or fail where every client must be there."""
    if REQUIRED:
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


def run(*command: object, stdin: str = "", **variables: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        text=True,
        env={**environment.child_environment(), **variables},
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


# --- Java ---


@pytest.fixture(scope="module")
def java(tmp_path_factory):
    """Return what asks the Java program a question."""
    for name in ("javac", "mvn"):
        if shutil.which(name) is None:
            missing(f"the program {name}: apt install openjdk-17-jdk-headless maven")
    project = tmp_path_factory.mktemp("java") / "java"
    shutil.copytree(EXAMPLES / "java", project, ignore=shutil.ignore_patterns("build"))
    libraries = project / "libraries.txt"
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
    run("mvn", "-B", "-q", "-f", project, "compile", copy, f"-Dmdep.outputFile={libraries}")
    classes = f"{project / 'build' / 'classes'}{os.pathsep}{libraries.read_text()}"

    def ask(folder: Path, question: str) -> str:
        # The tokenizer's library unpacks itself into the cache, and fetches nothing.
        variables = {"DJL_OFFLINE": "true", "DJL_CACHE_DIR": str(project / "cache")}
        words = ("java", "-cp", classes, "example.Chat", folder, question, MAX_NEW_TOKENS)
        return run(*words, **variables).strip()

    return ask


@slow
@pytest.mark.parametrize("question", ["Tell me of the witch.", TYPED])
def test_java_answers_as_our_session_does(java, demo, question):
    assert java(demo, question) == ours(demo, question)[1]


@slow
def test_java_knows_the_capital_of_france(java, real_bundles):
    folder = real_bundles / "onnx"
    answer = java(folder, QUESTION)
    assert "Paris" in answer
    assert answer == ours(folder, QUESTION)[1]


# --- C++ ---


@pytest.fixture(scope="module")
def cpp(tmp_path_factory):
    """Return what asks the C++ program for the ids after others."""
    headers = swift_root.default_folder() / "usr" / "include" / "onnxruntime"
    if not (headers / "onnxruntime_cxx_api.h").is_file():
        missing(f"onnxruntime's headers in {headers}: python3 tools/apps/check_ios.py")
    if shutil.which("g++") is None:
        missing("the program g++: apt install g++")
    folder = tmp_path_factory.mktemp("cpp")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    program = folder / "generate"
    flags = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror")
    link = (f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}")
    run("g++", *flags, f"-I{headers}", EXAMPLES / "cpp" / "generate.cpp", *link, "-o", program)

    def ask(bundle: Path, ids: list[int]) -> list[int]:
        manifest = json.loads((bundle / "manifest.json").read_text())
        stops = manifest["tokenizer"]["stop_token_ids"]
        words = (program, bundle / manifest["artifact"], MAX_NEW_TOKENS, *stops)
        return [int(word) for word in run(*words, stdin=" ".join(map(str, ids))).split()]

    return ask


@slow
def test_cpp_writes_the_ids_of_our_session(cpp, real_bundles):
    folder = real_bundles / "onnx"
    ids, text = ours(folder, QUESTION)
    assert load_tokenizer(folder).decode(cpp(folder, ids)).strip() == text
    assert "Paris" in text


@slow
def test_cpp_refuses_what_is_no_model(cpp, demo, tmp_path):
    shutil.copy(demo / "manifest.json", tmp_path)
    with pytest.raises(AssertionError, match=r"model\.onnx failed|doesn't exist"):
        cpp(tmp_path, [1])


# --- the page ---

# It does what a person does, in a frame, and reports what that person sees.
DRIVER = """<!doctype html>
<iframe src="/browser/index.html" style="width: 390px; height: 700px"></iframe>
<script type="module">
  const { question, stop_after } = await (await fetch('/request')).json();
  const frame = document.querySelector('iframe');
  const find = (what) => frame.contentDocument?.querySelector(what);
  const until = async (holds) => {
    while (!holds()) await new Promise((resume) => setTimeout(resume, 20));
  };
  const status = () => find('#status')?.textContent ?? '';
  const isError = () => status().startsWith('Error');
  const ask = async (question) => {
    find('textarea').value = question;
    find('button').click();
    const answers = () => [...frame.contentDocument.querySelectorAll('.assistant')];
    const answer = () => answers().at(-1).textContent;
    if (stop_after) {
      await until(() => answer().length > stop_after || isError());
      find('button').click();
    }
    await until(() => / a second/.test(status()) || isError());
    return answer();
  };
  await until(() => status().startsWith('Ready') || isError());
  const answers = isError() ? [] : [await ask(question)];
  const wide = frame.contentDocument.documentElement.scrollWidth;
  const body = JSON.stringify({ status: status(), answers, wide });
  await fetch('/answer', { method: 'POST', body });
</script>
"""
LIBRARY = """
export const TRANSFORMERS = '/node_modules/@huggingface/transformers/dist/transformers.min.js';
export const WEB_ASSEMBLY = '/node_modules/onnxruntime-web/dist/';
"""


def see_page(
    folder: Path,
    request: object,
    tmp_path: Path,
    console: list[str],
    library: str = LIBRARY,
):
    if not CLIENTS.has_transformers_js():
        missing("transformers.js: python3 tools/clients.py transformers.js")
    try:
        chromium = find_chromium()
    except MissingClientError as error:
        missing(str(error))
    (tmp_path / "page.html").write_text(DRIVER)
    (tmp_path / "library.mjs").write_text(library)
    served = {
        "/page.html": tmp_path / "page.html",
        "/browser/library.mjs": tmp_path / "library.mjs",
        "/browser/bundle/": folder,
        "/browser/": EXAMPLES / "browser",
        "/node_modules/": CLIENTS.js / "node_modules",
    }
    return ask_page(chromium, served, request, console)


@slow
def test_the_page_answers_and_stops_when_told(demo, tmp_path):
    console: list[str] = []
    # The demo's template writes the date, so what the answer is depends on the day.
    asked = {"question": "Tell me of the witch."}
    seen = see_page(demo, asked | {"stop_after": 0}, tmp_path, console)
    assert seen["wide"] <= 390
    (answer,) = seen["answers"]
    (part,) = see_page(demo, asked | {"stop_after": 10}, tmp_path, console)["answers"]
    assert answer.startswith(part)
    assert 10 < len(part) < len(answer)
    assert console == []


@slow
def test_the_page_knows_the_capital_of_france(real_bundles, tmp_path):
    console: list[str] = []
    asked = {"question": QUESTION, "stop_after": 0}
    (answer,) = see_page(real_bundles / "onnx", asked, tmp_path, console)["answers"]
    assert "Paris" in answer
    assert console == []


# With its names, without which a worker is not even begun.
BROKEN = (
    "export const TRANSFORMERS = '', WEB_ASSEMBLY = '';\nthrow new Error('the library is lost');"
)


@slow
@pytest.mark.parametrize("library", [LIBRARY, BROKEN])
def test_the_page_says_what_is_wrong(library, tmp_path):
    """A bundle that is not there, and a library; what a worker throws is on the console."""
    empty = tmp_path / "empty"
    empty.mkdir()
    console: list[str] = []
    asked = {"question": "Hi.", "stop_after": 0}
    seen = see_page(empty, asked, tmp_path, console, library=library)
    assert seen["status"].startswith("Error: ")
    assert seen["answers"] == []
    assert any("the library is lost" in line for line in console) == (library != LIBRARY), console


def test_the_documents_java_is_that_of_the_program():
    (shown,) = re.findall(r"```java\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    program = (EXAMPLES / "java/src/main/java/example/Model.java").read_text()
    have = {line.strip() for line in program.splitlines()}
    assert [line for line in shown.splitlines() if line not in have] == []


def test_the_page_takes_the_library_that_is_tested():
    pinned = json.loads((environment.ROOT / "tests/clients/package.json").read_text())
    version = pinned["dependencies"]["@huggingface/transformers"]
    library = (EXAMPLES / "browser" / "library.mjs").read_text()
    assert re.findall(r"transformers@([\d.]+)/", library) == [version]
