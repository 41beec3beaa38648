"""`llama-export serve` as a program, the lines of its page, and a real model on each target."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.real_model import QUESTION
from artifacts.served import running

from clients import Clients

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "serving.md"
ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)/v1 answers, and \1 is a page")


@contextmanager
def served(*words: object):
    """Run the command, and yield its process and its address."""
    roots = os.pathsep.join(str(ROOT / root) for root in ("export", "quantize"))
    variables = {**os.environ, "PYTHONPATH": roots, "COLUMNS": "200"}
    command = [sys.executable, "-m", "llama_export", "serve", *map(str, words), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if found := ADDRESS.search(line):
                    break
            else:
                pytest.fail("".join(said))
            yield process, found[1]
        finally:
            process.kill()


def curl_lines(text: str) -> list[str]:
    """Return the curl commands of a page's blocks, each as one line."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.mark.onnx
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_the_lines_of_the_page_are_answered_and_ctrl_c_ends_it(demo_bundle):  # noqa: F811
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    lines = curl_lines(PAGE.read_text(encoding="utf-8"))
    assert len(lines) == 6
    with served(demo_bundle, "--threads", 1) as (process, address):
        for line in lines:
            command = line.replace("http://localhost:8080", address)
            command = command.replace("curl ", "curl -sS --fail-with-body ")
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            assert done.stdout.strip()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    assert "the server has ended" in rest
    assert "Traceback" not in rest
    assert rest.count(" 200 ") == len(lines)


def test_a_server_for_others_wants_a_key(command):
    code, out, err = command("serve", "bundle", "--host", "0.0.0.0")
    assert (code, out) == (2, "")
    assert "--host 0.0.0.0 can be reached by others, and there is no key" in " ".join(err.split())
    assert "--api-key" in err


def test_an_empty_key_is_no_key(command):
    """A variable of the shell that is not set must not open the server to every program."""
    code, out, err = command("serve", "bundle", "--api-key", "")
    assert (code, out) == (2, "")
    assert "--api-key is empty" in err


def test_a_missing_package_is_named(command, monkeypatch):
    monkeypatch.setattr("llama_export.cli.serve._PACKAGES", ("starlette", "uvicorm"))
    code, _, err = command("serve", "bundle")
    assert code == 6
    assert "serve needs uvicorm" in err
    assert 'pip install "llama-export[serve]"' in err


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(command, tmp_path):
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = command("serve", tmp_path / "no-bundle", "--port", port)
    assert code == 11
    assert f"port {port} of 127.0.0.1 cannot be taken" in " ".join(err.split())


@pytest.mark.onnx
def test_of_two_that_wait_for_a_port_one_listens(command, demo_bundle, monkeypatch):  # noqa: F811
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")

    def refuse(*_words: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr("socket.socket.listen", refuse)
    code, _, err = command("serve", demo_bundle, "--port", "0")
    assert code == 11
    assert "cannot be taken" in " ".join(err.split())


NODE = """
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[2], apiKey: '-', maxRetries: 0 });
const asked = {
  model: 'demo', messages: [{ role: 'user', content: 'Go on.' }], max_tokens: 12, temperature: 0,
};
const whole = await client.chat.completions.create(asked);
let text = '';
let usage = null;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) {
  text += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage ?? usage;
}
const response = await client.responses.create({
  model: 'demo', input: 'Go on.', max_output_tokens: 12, temperature: 0,
});
let refused = null;
try {
  await client.chat.completions.create({ ...asked, logit_bias: { 1: 2 } });
} catch (error) {
  refused = [error.constructor.name, error.status, error.param];
}
const said = whole.choices[0].message.content;
console.log(JSON.stringify({ said, text, usage, response: response.output_text, refused }));
"""


@pytest.mark.onnx
def test_the_client_for_node_is_answered(demo_bundle):  # noqa: F811
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    clients, hint = Clients(ROOT), "python3 tools/clients.py transformers.js"
    if not (clients.has_transformers_js() and shutil.which("node")):
        if os.environ.get("LLAMA_EXPORT_REQUIRE_CLIENTS") == "1":
            pytest.fail(f"the client openai is missing: {hint}")
        pytest.skip(f"the client openai is missing: {hint}")
    program = clients.js / "openai-client.mjs"
    program.write_text(NODE, encoding="utf-8")
    with running(demo_bundle) as server:
        command = ["node", str(program), f"{server.url}/v1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["said"] == found["text"] == found["response"] != ""
    assert found["usage"]["completion_tokens"] == 12
    assert found["refused"] == ["BadRequestError", 400, "logit_bias"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "executorch", "coreml"])
def test_a_real_chat_model_answers_on_each_target(real_bundles, target):
    openai = pytest.importorskip("openai", reason="needs openai, of the test group")
    with running(real_bundles / target) as server:
        ask_for_paris(openai, server)


def ask_for_paris(openai, server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        (model,) = client.models.list()
        asked = {"model": model.id, "temperature": 0, "max_tokens": 16}
        messages = [{"role": "user", "content": QUESTION}]
        first = client.chat.completions.create(messages=messages, **asked)
        said = first.choices[0].message
        assert "Paris" in said.content
        chunks = list(client.chat.completions.create(messages=messages, stream=True, **asked))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert "Paris" in text
        more = [*messages, {"role": "assistant", "content": said.content}]
        more += [{"role": "user", "content": "And of Italy?"}]
        second = client.chat.completions.create(messages=more, **asked)
        cached = second.usage.prompt_tokens_details.cached_tokens
        assert cached >= first.usage.prompt_tokens
