"""Four stock clients, unmodified, run one bundle: the same ids and the same text in all of them.

onnxruntime alone, onnxruntime-genai, optimum, and transformers.js in node and in Chromium. Their
programs lie beside this file; `python3 tools/clients.py` installs what `.venv` has not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from artifacts.chromium import ask_page
from artifacts.dialogs import encode_dialog
from artifacts.distributions import PLUGIN, build, unpack
from artifacts.opened import session_of
from artifacts.real_model import QUESTION

import environment
from clients import Clients, MissingClientError, find_chromium, find_node
from llama_export import load
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.generation.decoding import Generation
from llama_export.generation.sampling import Sampling
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

PROGRAMS = Path(__file__).parent
ROOT = environment.ROOT
REQUIRED = os.environ.get("LLAMA_EXPORT_REQUIRE_CLIENTS") == "1"
CLIENTS = Clients(ROOT)
MAX_NEW_TOKENS = 48
DATE = "26 Jul 2024"
# Two kernels' int8 products differ by up to 0.1 in a logit (x86 against WebAssembly, this model,
# all of the vocabulary; 0.05 among the likeliest 20), so a nearer second might come out first.
LEAST_MARGIN = 0.12


@dataclass(frozen=True)
class Prompt:
    """A text to go on from, or the messages of a chat."""

    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        if self.text:
            return [*tokenizer.prefix_ids, *tokenizer.encode(self.text)]
        return encode_dialog(tokenizer, [Message(*each) for each in self.messages], date=DATE)

    def to_json(self) -> dict[str, object]:
        if self.text:
            return {"text": self.text}
        messages = [{"role": role, "content": content} for role, content in self.messages]
        return {"messages": messages, "date": DATE}


# Chosen for their margins, which a test below measures.
PROMPTS = (
    Prompt(text="The witch opened the door"),
    Prompt(text="The queen saw a light"),
    Prompt(
        messages=(
            ("system", "You tell fairy tales."),
            ("user", "Tell me of the witch."),
            (
                "assistant",
                "Once upon a time there lived a king who had a son and a daughter. The witch "
                "opened the door, and the door opened, and the door opened, and the door opened.",
            ),
            ("user", "Once more."),
        )
    ),
    Prompt(
        messages=(
            ("user", "Go on."),
            (
                "assistant",
                "She had a little boy, and a little boy, and a little boy, and a little boy.",
            ),
            ("user", "Go on."),
        )
    ),
)
OTHER_PROMPT = Prompt(text="The soldier opened the door")


def request(*prompts: Prompt) -> dict[str, object]:
    return {
        "max_new_tokens": MAX_NEW_TOKENS,
        "prompts": [prompt.to_json() for prompt in prompts],
    }


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The demo model's bundle; whatever a client does, it must be the same afterwards."""
    exported = ExportRequest("demo", ("onnx",), tmp_path_factory.mktemp("demo"), verify=False)
    opened = export_bundle(exported, Silent()).bundles[0].bundle
    before = digests(opened.folder)
    for path in (*opened.folder.iterdir(), opened.folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield opened
    opened.folder.chmod(0o755)
    assert digests(opened.folder) == before


@pytest.fixture(scope="module")
def folder(bundle) -> Path:
    return bundle.folder


@pytest.fixture(scope="module")
def ours(bundle) -> list[dict[str, object]]:
    """What our session writes, with the smallest distance of the best logit from the second."""
    tokenizer = load_tokenizer(bundle.folder)
    stops = bundle.manifest.tokenizer["stop_token_ids"]
    session = session_of(bundle, threads=1)
    answers = []
    for prompt in PROMPTS:
        input_ids = prompt.encode(tokenizer)
        session.rewind(0)
        generation = Generation(
            session,
            input_ids,
            sampling=Sampling(temperature=0),
            stop_token_ids=stops,
            max_tokens=MAX_NEW_TOKENS,
        )
        ids = list(generation)
        answers.append({"prompt": input_ids, "ids": ids, "text": tokenizer.decode(ids)})
    return answers


def margins(bundle, answer) -> list[float]:
    """How far the best logit is above the second, at each new token."""
    session = session_of(bundle, threads=1)
    found, fed = [], answer["prompt"]
    for token in answer["ids"]:
        second, first = np.sort(session.prefill(fed))[-2:]
        found.append(float(first - second))
        fed = [token]
    return found


def run_python(python: Path | str, name: str, folder: Path, asked: object):
    """Run one of the programs in tests/clients as its user would, with no hub to ask."""
    variables = environment.child_environment() | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return read_answers(
        [str(python), str(PROGRAMS / name), str(folder)], json.dumps(asked), variables
    )


def read_answers(command: list[str], stdin: str, variables: dict[str, str]):
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def missing(client: str, hint: str) -> None:
    """Skip, or fail where every client must be there."""
    message = f"the client {client} is missing: {hint}"
    if REQUIRED:
        pytest.fail(message)
    pytest.skip(message)


def transformers_js(found: bool) -> Path:
    if not found:
        missing("transformers.js", "python3 tools/clients.py transformers.js")
    return CLIENTS.js / "node_modules"


def run_plain_onnxruntime(folder: Path, asked: object):
    return run_python(sys.executable, "plain_onnxruntime.py", folder, asked)


def require_genai() -> None:
    if importlib.util.find_spec("onnxruntime_genai") is None:
        if sys.version_info < (3, 11):
            pytest.skip("onnxruntime-genai 0.18 has no wheel for Python 3.10")
        missing("onnxruntime-genai", "pip install onnxruntime-genai")


def run_genai(folder: Path, asked: object):
    require_genai()
    return run_python(sys.executable, "genai.py", folder, asked)


def run_optimum(folder: Path, asked: object):
    if not CLIENTS.has_optimum():
        missing("optimum", "python3 tools/clients.py optimum")
    python = CLIENTS.optimum.program("python")
    return run_python(python, "optimum_onnxruntime.py", folder, asked)


def run_node(folder: Path, asked: object, program: str = "node.mjs"):
    modules = transformers_js(CLIENTS.has_transformers_js())
    try:
        node = find_node("node")
    except MissingClientError as error:
        missing("transformers.js in node", str(error))
    # A user's project has the package beside the program.
    project = folder.parent / "node-project"
    project.mkdir(exist_ok=True)
    for name in (program, "answers.mjs"):
        shutil.copy(PROGRAMS / name, project)
    if not (project / "node_modules").exists():
        (project / "node_modules").symlink_to(modules)
    variables = environment.child_environment()
    return read_answers([node, str(project / program), str(folder)], json.dumps(asked), variables)


def run_node_with_repository(folder: Path, asked: object):
    return run_node(folder, asked, "node_repository.mjs")


def run_browser(folder: Path, asked: object):
    modules = transformers_js(CLIENTS.has_transformers_js())
    try:
        chromium = find_chromium()
    except MissingClientError as error:
        missing("transformers.js in Chromium", str(error))
    served = {
        "/page.html": PROGRAMS / "browser.html",
        "/answers.mjs": PROGRAMS / "answers.mjs",
        "/node_modules/": modules,
        "/models/onnx/": folder,
    }
    answer = ask_page(chromium, served, asked)
    assert "error" not in answer, answer["error"]
    return answer["answers"]


ALL = {
    "onnxruntime alone": run_plain_onnxruntime,
    "onnxruntime-genai": run_genai,
    "optimum": run_optimum,
    "transformers.js in node": run_node,
    "transformers.js in Chromium": run_browser,
}


def test_the_prompts_have_clear_margins_and_long_answers(bundle, ours):
    """Measured, so that equality below is no luck: no token is near to being another."""
    smallest = [min(margins(bundle, answer)) for answer in ours]
    assert min(smallest) > LEAST_MARGIN, smallest
    assert [len(answer["ids"]) for answer in ours] == [MAX_NEW_TOKENS] * len(PROMPTS)
    assert len({answer["text"] for answer in ours}) == len(PROMPTS)


@pytest.mark.parametrize("client", ALL)
def test_a_stock_client_writes_the_same_ids_and_text(client, folder, ours):
    assert ALL[client](folder, request(*PROMPTS)) == ours


@pytest.mark.parametrize("run", [run_optimum, run_node_with_repository])
def test_the_whole_output_runs_by_its_name_alone(run, folder, ours, tmp_path):
    """Config and tokenizer at the root, and `onnx/model.onnx` below it, as on the hub."""
    names = [path.name for path in folder.parent.iterdir() if path.is_file()]
    root = tmp_path / "repository"
    shutil.copytree(folder, root / "onnx")
    for name in names:
        shutil.copy(folder.parent / name, root)
    assert run(root, request(*PROMPTS)) == ours


def test_a_batch_of_unequal_lengths_writes_what_each_prompt_writes_alone(folder, ours):
    prompts = [answer["prompt"] for answer in ours]
    assert len(set(map(len, prompts))) > 2
    asked = {"input_ids": prompts, "max_new_tokens": MAX_NEW_TOKENS}
    found = run_python(sys.executable, "batch_onnxruntime.py", folder, asked)
    assert found == [answer["ids"] for answer in ours]


def test_a_batch_in_genai_writes_what_each_text_writes_alone(folder):
    require_genai()
    texts = [f"<|begin_of_text|>{text}" for text in (PROMPTS[0].text, "The queen")]

    def run(*asked: str) -> list[list[int]]:
        request = {"texts": asked, "max_new_tokens": MAX_NEW_TOKENS}
        return run_python(sys.executable, "batch_genai.py", folder, request)

    assert run(*texts) == [*run(texts[0]), *run(texts[1])]


@pytest.mark.slow
@pytest.mark.parametrize("client", ["onnxruntime-genai", "transformers.js in node"])
def test_a_real_chat_model_answers_in_a_stock_client(client, real_bundles):
    """Its own template and its own tokenizer, as the client reads them."""
    folder = real_bundles / "onnx"
    asked = request(Prompt(messages=(("user", QUESTION),))) | {"max_new_tokens": 16}
    (found,) = ALL[client](folder, asked)
    with load(folder) as session:
        prompt = session.chat_format.encode(Dialog([Message("user", QUESTION)]))
    assert found["prompt"] == prompt
    assert "Paris" in found["text"]


def test_the_command_line_writes_the_same_text(folder, ours):
    arguments = ["generate", str(folder), "--prompt", PROMPTS[0].text, "--temperature", "0"]
    command = [sys.executable, "-m", "llama_export", *arguments, "-n", str(MAX_NEW_TOKENS)]
    roots = os.pathsep.join(str(ROOT / root) for root in ("export", "quantize"))
    variables = {**os.environ, "PYTHONPATH": roots}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PROMPTS[0].text + ours[0]["text"] + "\n"


def test_another_prompt_and_a_changed_weight_give_another_text(folder, ours, tmp_path):
    """The comparison above can fail: one projection's nibbles change places."""
    (other,) = run_plain_onnxruntime(folder, request(OTHER_PROMPT))
    assert other["text"] not in {answer["text"] for answer in ours}
    changed = tmp_path / "onnx"
    shutil.copytree(folder, changed)
    for path in (changed, *changed.iterdir()):
        path.chmod(0o755)
    swap_nibbles(changed, "model.layers.5.mlp.down_proj.weight.codes")
    found = run_plain_onnxruntime(changed, request(*PROMPTS))
    assert [answer["prompt"] for answer in found] == [answer["prompt"] for answer in ours]
    assert all(one["text"] != other["text"] for one, other in zip(found, ours, strict=True))


def swap_nibbles(folder: Path, name: str) -> None:
    import onnx

    proto = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    place = {entry.key: entry.value for entry in tensor.external_data}
    first, length = int(place["offset"]), int(place["length"])
    path = folder / "model.onnx_data"
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    part = data[first : first + length]
    data[first : first + length] = (part << 4) | (part >> 4)
    path.write_bytes(data.tobytes())


def test_the_bundle_says_to_transformers_js_where_its_files_are(folder):
    written = json.loads((folder / "config.json").read_text())
    settings = written.pop("transformers.js_config")
    assert settings == {"dtype": "fp32", "use_external_data_format": {"model.onnx": 1}}
    # It is for the client: the model that it describes is the same.
    assert LlamaConfig.read(folder / "config.json") == LlamaConfig.from_hf(written)
    weights = json.loads((folder.parent / "weights" / "config.json").read_text())
    assert weights == written


def test_a_missing_client_is_named_and_fails_where_it_must_be_there(monkeypatch):
    this = sys.modules[__name__]
    monkeypatch.setattr(this, "CLIENTS", Clients(Path("/nowhere")))
    monkeypatch.setattr(this, "REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match=r"client transformers\.js is missing: python3"):
        transformers_js(found=False)
    monkeypatch.setattr(this, "REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="client optimum is missing: python3 tools"):
        missing("optimum", "python3 tools/clients.py optimum")


@pytest.fixture(scope="module")
def optimum_cli(tmp_path_factory):
    """`optimum-cli export llama` where optimum is, with the plug-in's wheel and our sources."""
    if not CLIENTS.has_optimum():
        missing("optimum", "python3 tools/clients.py optimum")
    pytest.importorskip("hatchling", reason="needs hatchling, of the test group")
    wheel = build("wheel", ROOT / PLUGIN, tmp_path_factory.mktemp("wheel"))
    plugin = unpack(wheel, tmp_path_factory.mktemp("plugin"))
    roots = os.pathsep.join(str(root) for root in (ROOT / "export", ROOT / "quantize", plugin))
    variables = {**environment.child_environment(), "PYTHONPATH": roots, "COLUMNS": "100"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(CLIENTS.optimum.program("optimum-cli")), "export", "llama", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)

    return run


def test_optimum_cli_exports_the_same_bundle(optimum_cli, folder, tmp_path):
    words = ["--model", "demo", "-t", "onnx", "--no-verify", "--quality", "fast"]
    done = optimum_cli(*words, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    theirs, ours = digests(tmp_path / "out" / "onnx"), digests(folder)
    del theirs["manifest.json"], ours["manifest.json"]  # it names the versions of the libraries
    assert theirs == ours


def test_optimum_cli_has_the_options_and_the_errors_of_llama_export(optimum_cli):
    shown = optimum_cli("--help")
    assert {"--target", "--quantize", "--no-verify", "--force"} <= set(shown.stdout.split())
    refused = optimum_cli("--model", "demo")
    assert refused.returncode == 2
    assert "error: an export needs both --target and --model" in refused.stderr


def documented_lines(text: str) -> dict[str, list[str]]:
    """Return the lines that each section of the document shows of its program."""
    found = {}
    for section in text.split("\n## "):
        for program in re.findall(r"`tests/clients/(?!test_)([\w.]+)`", section):
            blocks = re.findall(r"```(?:python|js)\n(.*?)```", section, flags=re.DOTALL)
            found[program] = [line.strip() for line in "".join(blocks).splitlines()]
    return found


def unknown_lines(lines: list[str], program: str) -> list[str]:
    """Name the lines that a program has not; values and prints are the reader's own."""
    have = {line.strip() for line in program.splitlines()}
    own = re.compile(r"(const )?(folder|text|max_new_tokens) = |print\(|console\.log\(")
    return [line for line in lines if line not in have and not own.match(line)]


def test_the_documents_lines_are_those_of_the_programs_that_are_tested():
    documented = documented_lines((ROOT / "docs" / "clients.md").read_text(encoding="utf-8"))
    files = [path for path in PROGRAMS.iterdir() if path.suffix in (".html", ".mjs", ".py")]
    programs = {path.name for path in files if not path.name.startswith("test_")}
    assert set(documented) == programs - {"answers.mjs"}
    for name, lines in documented.items():
        assert len(lines) > 5, name
        assert unknown_lines(lines, (PROGRAMS / name).read_text(encoding="utf-8")) == [], name
    assert unknown_lines(["folder = 1", "x = load(folder)"], "x = open(folder)") == [
        "x = load(folder)"
    ]


def test_genai_renders_a_chat_with_the_template_of_the_bundle(folder):
    """Its own way, with today's date, which is read out of what it wrote."""
    genai = pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    chat = PROMPTS[-1]
    stock = genai.Tokenizer(genai.Model(str(folder)))
    text = stock.apply_chat_template(json.dumps(chat.to_json()["messages"]))
    (date,) = re.findall(r"Today Date: (\d\d \w{3} \d{4})", text)
    dialog = [Message(*each) for each in chat.messages]
    tokenizer = load_tokenizer(folder)
    assert stock.encode(text).tolist() == encode_dialog(tokenizer, dialog, date=date)
    assert stock.encode(text).tolist() != encode_dialog(tokenizer, dialog, date="1 Jan 1970")
